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

# Filters of system calls, limits, mounts, forks, clocks, panics: each error from the real fault. `just test` has them too.
environment:
    cargo test -p annals --test environment --test exhausted_memory --test layers --test errors

# docs/TESTING.md tells of each. ANNALS_NO_SKIPS=1 makes a failure of what can't be run here.
# All that shows that nothing acknowledged is lost, as CI has it.
evidence:
    .ci/run simulation mutants loom shuttle histories kills power fuzz miri sanitizers

# The store on one thread, from seeds: SIM_SEEDS, SIM_FROM, SIM_MINUTES, SIM_RECOVERIES_MIN.
simulation:
    .ci/run simulation

# One seed again.
seed seed:
    cargo run --profile checked -p annals-sim -- --seed {{seed}}

# The simulation for so many minutes, from seeds of its own.
soak minutes="40" from="1000000":
    SIM_SEEDS=1000000000 SIM_MINUTES={{minutes}} SIM_FROM={{from}} .ci/run simulation

# Each planted fault of the engine has to be found, within MUTANT_SEEDS seeds.
mutants:
    .ci/run mutants

# The models; LOOM_MAX_PREEMPTIONS raises the bound.
loom:
    .ci/run loom

# Larger models and the whole engine, through schedules that are drawn: ANNALS_SCHEDULES_TIMES as many, ANNALS_SCHEDULES_SEED others.
shuttle:
    .ci/run shuttle

# Threads on the real store, and two checkers: TRIALS_HISTORIES, TRIALS_WINDOWS, TRIALS_SEED.
histories:
    .ci/run histories

# Killed processes, system calls that kill or fail, stragglers: TRIALS_KILLS, TRIALS_POINTS, TRIALS_STRAGGLERS, TRIALS_SEED.
kills:
    .ci/run kills

# What the lock that is registered in the ring is for: the same without it.
stragglers-plain:
    cargo run --profile checked -p annals-trials -- stragglers --plain --rounds 50

# The power is cut under a real file system: POWER_IMAGES, POWER_SEED, POWER_FS="xfs btrfs" beside ext4.
power:
    .ci/run power

# The same under a virtual machine: POWER_CUTS.
power-vm:
    .ci/run power_vm

# The fuzz targets: FUZZ_SECONDS for each, FUZZ_TARGETS to name some, FUZZ_SEED, FUZZ_SANITIZER=address.
fuzz:
    .ci/run fuzz

user:
    .ci/run user

# Unsafe code under Miri: MIRI_SEEDS, MIRI_MORE=-Zmiri-tree-borrows, MIRI_TARGET=i686-unknown-linux-gnu or s390x-unknown-linux-gnu.
miri:
    .ci/run miri

# ThreadSanitizer, then AddressSanitizer.
sanitizers:
    .ci/run sanitizers

# Meant are, in minutes without building: simulation 15, mutants 2, loom at bound 3 5, shuttle 6, histories 5, kills 6, power on ext4
# and XFS 6 and under a virtual machine 3, fuzz with AddressSanitizer 8, Miri 3, sanitizers 1.
# The evidence for an hour on two cores, from other seeds each night.
nightly:
    ANNALS_NIGHT=$(date +%Y%m%d) && export \
        SIM_SEEDS=1000000000 SIM_MINUTES=15 SIM_FROM=${ANNALS_NIGHT}000000 \
        LOOM_MAX_PREEMPTIONS=3 ANNALS_SCHEDULES_TIMES=8 ANNALS_SCHEDULES_SEED=$ANNALS_NIGHT \
        TRIALS_SEED=$ANNALS_NIGHT TRIALS_HISTORIES=3000 TRIALS_WINDOWS=9 TRIALS_KILLS=1500 TRIALS_POINTS=1000 TRIALS_STRAGGLERS=100 \
        POWER_SEED=$ANNALS_NIGHT POWER_IMAGES=500 POWER_FS=xfs POWER_CUTS=6 \
        FUZZ_SECONDS=50 FUZZ_SANITIZER=address FUZZ_SEED=$ANNALS_NIGHT MIRI_SEEDS=64 && \
    .ci/run simulation mutants loom shuttle histories kills power power_vm fuzz miri sanitizers

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
