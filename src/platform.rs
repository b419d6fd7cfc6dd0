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

/// Has the system take this library's code and constants out of the process' memory; what is used on comes back by being
/// used, from the file that the system has at hand.
///
/// Loading a library and starting a server touch far more of it than waiting for requests does, and that more than doing
/// nothing. Measured: an idle worker holds 1.9 MiB of it instead of 3.9; the first request brings 1.3 back, which takes a quarter
/// of a millisecond. A debugger's breakpoints that were set before are lost with the pages they are in.
#[cfg(target_os = "linux")]
pub(crate) fn give_back_code() {
    // SAFETY: the callback is called before this returns, with what it takes, and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(give_back_segments), std::ptr::null_mut()) };
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn give_back_code() {}

/// Gives back the segments of one loaded file, if it is the one that this function is in, and ends the search then.
#[cfg(target_os = "linux")]
unsafe extern "C" fn give_back_segments(file: *mut libc::dl_phdr_info, _: usize, _: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the loader gives a valid description, which it leaves alone meanwhile.
    let file = unsafe { &*file };
    if file.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let headers = unsafe { std::slice::from_raw_parts(file.dlpi_phdr, usize::from(file.dlpi_phnum)) };
    let loaded: Vec<_> = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD)
        .map(|header| {
            let start = (file.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
            (start, header.p_memsz as usize, header.p_flags & libc::PF_W != 0)
        })
        .collect();
    let here = give_back_code as *const () as usize;
    if !loaded.iter().any(|(start, length, _)| here.wrapping_sub(*start) < *length) {
        return 0;
    }
    // SAFETY: it takes a number and looks it up.
    let Ok(page @ 1..) = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) else { return 1 };
    for (start, length, _) in loaded.into_iter().filter(|(_, _, is_written)| !is_written) {
        let (first, last) = (start.next_multiple_of(page), (start + length) / page * page);
        if first < last {
            // SAFETY: whole pages of a segment that is never written, so that they are as in the file, from which the
            // system gets them when they are used again. It may refuse, and then nothing has changed.
            unsafe { libc::madvise(first as *mut libc::c_void, last - first, libc::MADV_DONTNEED) };
        }
    }
    1
}

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

    /// The mapping that this program's code is in: its bounds, and how many bytes of it are resident.
    #[cfg(target_os = "linux")]
    fn own_code() -> (std::ops::Range<usize>, usize) {
        let here = give_back_code as *const () as usize;
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("Linux has it");
        let mut lines = smaps.lines();
        let bounds = lines
            .by_ref()
            .filter_map(|line| line.split(' ').next()?.split_once('-'))
            .filter_map(|(start, end)| {
                Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
            })
            .find(|bounds| bounds.contains(&here))
            .expect("the code is somewhere");
        let resident = lines.find_map(|line| line.strip_prefix("Rss:")).expect("the next mapping begins with others");
        (bounds, resident.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024)
    }

    /// In a process of its own: other tests beside it would use much of the code again at once.
    #[cfg(target_os = "linux")]
    #[test]
    fn gives_code_back_and_has_it_again_when_it_is_used() {
        const ALONE: &str = "HTTPY_TEST_GIVES_CODE_BACK_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let this = "platform::tests::gives_code_back_and_has_it_again_when_it_is_used";
            let alone = std::process::Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", this, "--test-threads=1", "--nocapture"])
                .env(ALONE, "1")
                .output()
                .expect("it can be started again");
            let said = String::from_utf8_lossy(&alone.stdout);
            assert!(alone.status.success(), "{said}{}", String::from_utf8_lossy(&alone.stderr));
            assert!(said.contains("1 passed"), "{said}");
            return;
        }
        let (bounds, _) = own_code();
        for page in bounds.step_by(4096) {
            // SAFETY: it is mapped, for as long as the program runs, and may be read.
            std::hint::black_box(unsafe { std::ptr::read_volatile(page as *const u8) });
        }
        let (_, before) = own_code();

        give_back_code();

        let (_, after) = own_code();
        assert!(after < before / 2, "{after} of {before} bytes are resident");
    }
}
