//! The `tollgate` binary: everything is in the library.

use std::process::ExitCode;

/// Saves about an eighth of the CPU of every request.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tollgate::cli::run()
}
