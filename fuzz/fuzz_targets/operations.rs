//! Operations, crashes and faults on a store, beside a model that knows what each has to say.

#![no_main]

annals_fuzz::target!(operations);
