# Each recipe is a step of `.ci/run`, which needs no `just`.

# Everything that CI checks.
default:
    .ci/run

fmt:
    .ci/run fmt

# Formats, where `fmt` only looks.
format:
    cargo fmt --all
    cargo fmt --manifest-path fuzz/Cargo.toml
    cargo fmt --manifest-path bench/peers/Cargo.toml

clippy:
    .ci/run clippy

doc:
    .ci/run doc

test:
    .ci/run test

# Ten million steps, each decided on the one before, by sixteen threads, on both back ends.
soak-deciding:
    ANNALS_SOAK=1 cargo test --release -p annals --test execute -- a_soak_of_counting --nocapture

examples:
    .ci/run examples

tour:
    .ci/run tour

targets:
    .ci/run targets

oldest:
    .ci/run oldest

deny:
    .ci/run deny

# The models; LOOM_MAX_PREEMPTIONS raises the bound.
loom:
    .ci/run loom

# The fuzz target; FUZZ_SECONDS says how long.
fuzz:
    .ci/run fuzz

user:
    .ci/run user

miri:
    .ci/run miri

tsan:
    .ci/run tsan

# 10,000,000 events, followed in every way at once. Takes minutes, and 4 GB in /var/tmp.
soak-following:
    ANNALS_SOAK=1 cargo test --release -p annals --test subscriptions all_that_follow

# The canonical benchmark, on the disk that the checkout lies on; or the suites that are named.
bench *suites:
    cargo run --release -p bench -- {{suites}}

# The same beside the peers that take long to build.
bench-peers *suites:
    cargo run --release --manifest-path bench/peers/Cargo.toml -- {{suites}}

# The suites of the benchmark.
bench-list:
    cargo run --release -p bench -- --list

# That the benchmark works, with no figure asserted.
bench-check:
    .ci/run bench

# What has no I/O, timed by criterion. ANNALS_BENCH_LARGE=1 adds the index with 10,000,000 keys.
bench-micro *arguments:
    cargo bench -p annals -- {{arguments}}

# The instructions of an append, an event that is read, a record that is opened. Needs valgrind.
callgrind *cases:
    cargo bench -p annals --bench instructions -- {{cases}}
