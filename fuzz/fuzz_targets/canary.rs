//! The target with a planted fault, which a run has to find: proof that the others could find theirs.

#![no_main]

annals_fuzz::target!(canary);
