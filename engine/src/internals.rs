//! Re-exports for the models, the fuzzers and the tests of this workspace.
