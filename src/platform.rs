//! What the operating system and its C library decide: how many descriptors a process may have, and what becomes of memory
//! that it has freed.

/// Has the system allow this process `wanted` open descriptors, and returns how many it allows.
///
/// The limit is raised by no more than that: programs that the process starts inherit it, and some take long over a large
/// one. It is never lowered.
#[cfg(unix)]
pub(crate) fn allow_descriptors(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// macOS' `OPEN_MAX`: it refuses more, whatever the hard limit says.
    const OPEN_MAX: u64 = 10_240;

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    let Some(current) = current else { return u64::MAX };
    let raised = wanted.min(maximum.unwrap_or(u64::MAX));
    [raised, raised.min(OPEN_MAX)]
        .into_iter()
        .filter(|raised| *raised > current)
        .find(|raised| setrlimit(Resource::Nofile, Rlimit { current: Some(*raised), maximum }).is_ok())
        .unwrap_or(current)
}

/// Elsewhere sockets are no descriptors, and memory is their only limit.
#[cfg(not(unix))]
pub(crate) fn allow_descriptors(_wanted: u64) -> u64 {
    u64::MAX
}

/// Has the allocator return free memory to the system. glibc by itself does so only at the end of the heap, where any small
/// thing keeps all that is before it: of the buffers of 2000 connections nothing was returned. Measured: 3 ms for 20 MB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn give_back_memory() {
    // SAFETY: it takes a number, may be called at any time on any thread, and changes no memory that is in use.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back_memory() {}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// The limit is the whole process's, so that other tests may see it change; it only ever grows.
    #[test]
    fn allows_what_the_system_grants_and_never_less_than_before() {
        let before = allow_descriptors(0);
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);

        let more = allow_descriptors((before + 1).min(hard));
        let most = allow_descriptors(hard.saturating_add(1));

        assert!(more >= (before + 1).min(hard), "{before} {more} {hard}");
        assert!(most <= hard && most >= more, "{more} {most} {hard}");
        assert_eq!(allow_descriptors(1), most);
    }
}
