//! Where lines go: a bounded buffer, and a thread that writes it out.
//!
//! 1. Who writes a line never waits: not for the disk, not for a terminal that someone has stopped, not for a pipe that
//!    nobody reads. Without room the line is dropped, and how many were is said as soon as there is room again.
//! 2. Several processes may write to one file or pipe. Lines stay whole: a file is appended to, and a pipe gets no more at
//!    once than it takes whole.
//! 3. A file that was renamed, as log rotation does, is opened anew.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How much may wait to be written. 1 MiB: some 6,000 lines, a blink of a disk at its busiest.
const BUFFER_BYTES: usize = 1024 * 1024;

/// What a pipe takes whole, so that lines of several writers don't mix (`PIPE_BUF` of Linux; POSIX asks for 512 at least).
const PIPE_BYTES: usize = 4096;

/// How long lines are gathered before they are written. 1 ms: under load one write for many lines, and nobody sees it.
const GATHER: Duration = Duration::from_millis(1);

/// How often it is looked whether the file is still the one of its name. 1 s, at most that long after a rotation do lines
/// go to the old one.
const LOOK: Duration = Duration::from_secs(1);

/// How long a write that can't go on rests (a pipe that was set not to block). 10 ms.
const REST: Duration = Duration::from_millis(10);

/// Takes lines.
pub struct Sink {
    shared: Arc<Shared>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something to write, or all of it is written.
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// How many lines there was no room for.
    dropped: u64,
    /// The thread has taken lines that it has not written yet.
    is_writing: bool,
    /// Nobody will write any more.
    is_closed: bool,
}

impl Sink {
    /// Writes to standard output.
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub fn stdout() -> io::Result<Arc<Self>> {
        Self::start(Output::Stream(Box::new(io::stdout())))
    }

    /// Appends to a file, which is made if it is not there.
    ///
    /// # Errors
    /// If the file can't be opened, or the system has no thread.
    pub fn file(path: impl Into<PathBuf>) -> io::Result<Arc<Self>> {
        let path = path.into();
        let file = open(&path)?;
        Self::start(Output::File { file, path, looked: Instant::now() })
    }

    fn start(output: Output) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared { waiting: Mutex::default(), changed: Condvar::new() });
        let theirs = shared.clone();
        thread::Builder::new().name("httpy-access-log".to_owned()).spawn(move || theirs.write_out(output))?;
        Ok(Arc::new(Self { shared }))
    }

    /// Takes the line that `write` appends, or drops it if too much waits already.
    pub(super) fn write(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut waiting = self.shared.lock();
        if waiting.lines.len() >= BUFFER_BYTES {
            waiting.dropped += 1;
            return;
        }
        let was_empty = waiting.lines.is_empty();
        write(&mut waiting.lines);
        let wakes = was_empty && !waiting.is_writing;
        drop(waiting);
        if wakes {
            self.shared.changed.notify_all();
        }
    }

    /// Waits until everything is written, at most so long, and returns whether it is.
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut waiting = self.shared.lock();
        while waiting.is_writing || !waiting.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            waiting = self.shared.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is the thread's life.
    fn write_out(&self, mut output: Output) {
        let mut lines = Vec::new();
        let mut is_broken = false;
        loop {
            let mut waiting = self.lock();
            waiting.is_writing = false;
            while waiting.lines.is_empty() && waiting.dropped == 0 {
                self.changed.notify_all();
                if waiting.is_closed {
                    return;
                }
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            waiting.is_writing = true;
            drop(waiting);
            thread::sleep(GATHER);
            let mut waiting = self.lock();
            // The buffers change places, so that both keep what they have grown to.
            std::mem::swap(&mut waiting.lines, &mut lines);
            let dropped = std::mem::take(&mut waiting.dropped);
            drop(waiting);
            if dropped > 0 {
                tracing::warn!(
                    kind = "limit",
                    dropped,
                    "lines of the access log were dropped: it is not written fast enough"
                );
            }
            let written = output.write(&lines);
            if let Err(error) = &written
                && !is_broken
            {
                // Once, until it works again: the next lines will fare no better.
                tracing::error!(%error, "the access log can't be written");
            }
            is_broken = written.is_err();
            lines.clear();
        }
    }
}

enum Output {
    File { file: File, path: PathBuf, looked: Instant },
    Stream(Box<dyn Write + Send>),
}

impl Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::File { file, path, looked } => {
                if looked.elapsed() >= LOOK {
                    *looked = Instant::now();
                    if is_another(file, path)
                        && let Ok(anew) = open(path)
                    {
                        *file = anew;
                    }
                }
                write_all(file, lines)
            }
            Self::Stream(stream) => {
                for whole in whole_lines(lines) {
                    write_all(stream, whole)?;
                    // Each at once: standard output would gather them again.
                    stream.flush()?;
                }
                Ok(())
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Whether the name has become another file's, or nobody's.
#[cfg(unix)]
fn is_another(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(ours), Ok(named)) = (file.metadata(), path.metadata()) else { return true };
    (ours.dev(), ours.ino()) != (named.dev(), named.ino())
}

/// A file that is open can't be renamed here.
#[cfg(not(unix))]
fn is_another(_: &File, path: &Path) -> bool {
    !path.exists()
}

/// Like `Write::write_all`, with patience for a descriptor that someone has set not to block.
fn write_all(to: &mut (impl Write + ?Sized), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(REST),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The lines in pieces that a pipe takes whole; a line that is longer is a piece by itself.
fn whole_lines(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let fits = &rest[..rest.len().min(PIPE_BYTES)];
        let end = memchr::memrchr(b'\n', fits).or_else(|| memchr::memchr(b'\n', rest)).map_or(rest.len(), |at| at + 1);
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    impl Sink {
        /// Writes into memory.
        pub(in super::super) fn memory() -> (Arc<Self>, Arc<Mutex<Vec<u8>>>) {
            let written = Arc::new(Mutex::new(Vec::new()));
            (Self::start(Output::Stream(Box::new(Memory(written.clone())))).unwrap(), written)
        }
    }

    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Writes when it is let.
    struct Held {
        lets: mpsc::Receiver<()>,
        entered: mpsc::Sender<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(());
            // An error is that the test is over.
            let _ = self.lets.recv();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("httpy-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn nobody_waits_for_what_is_not_read_and_what_is_too_much_is_dropped() {
        let ((let_go, lets), (entered, enters)) = (mpsc::channel(), mpsc::channel());
        let written = Arc::new(Mutex::new(Vec::new()));
        let held = Held { lets, entered, written: written.clone() };
        let sink = Sink::start(Output::Stream(Box::new(held))).unwrap();
        let line = |out: &mut Vec<u8>| out.extend_from_slice(&[[b'x'; 1023].as_slice(), b"\n"].concat());
        sink.write(line);
        enters.recv().unwrap();

        for _ in 0..BUFFER_BYTES / 1024 {
            sink.write(line);
        }
        let before = sink.shared.lock().dropped;
        sink.write(line);
        let after = sink.shared.lock().dropped;
        drop(let_go);

        assert_eq!((before, after), (0, 1));
        assert!(sink.flush(PATIENCE));
        assert_eq!(written.lock().unwrap().len(), BUFFER_BYTES + 1024);
    }

    #[test]
    fn flushing_does_not_wait_forever() {
        let ((_let_go, lets), (entered, _enters)) = (mpsc::channel(), mpsc::channel());
        let held = Held { lets, entered, written: Arc::default() };
        let sink = Sink::start(Output::Stream(Box::new(held))).unwrap();

        sink.write(|out| out.extend_from_slice(b"a\n"));

        assert!(!sink.flush(Duration::from_millis(1)));
    }

    #[test]
    fn what_is_written_last_is_written_when_the_sink_is_gone() {
        let folder = folder("last");
        let path = folder.join("access.log");
        let sink = Sink::file(&path).unwrap();
        let shared = sink.shared.clone();

        sink.write(|out| out.extend_from_slice(b"a\n"));
        drop(sink);
        // Ours and no other: the thread has ended.
        let start = Instant::now();
        while Arc::strong_count(&shared) > 1 && start.elapsed() < PATIENCE {
            thread::yield_now();
        }

        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\n");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_renamed_is_opened_anew() {
        let folder = folder("rotate");
        let path = folder.join("access.log");
        let long_ago = Instant::now().checked_sub(LOOK).unwrap();
        let mut output = Output::File { file: open(&path).unwrap(), path: path.clone(), looked: long_ago };
        output.write(b"a\n").unwrap();

        std::fs::rename(&path, folder.join("access.log.1")).unwrap();
        let Output::File { looked, .. } = &mut output else { panic!() };
        *looked = long_ago;
        output.write(b"b\n").unwrap();

        assert_eq!(std::fs::read_to_string(folder.join("access.log.1")).unwrap(), "a\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "b\n");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_pipe_gets_whole_lines() {
        let long = [b"y".repeat(PIPE_BYTES + 7).as_slice(), b"\n"].concat();
        let lines = [b"x\n".repeat(PIPE_BYTES / 2 + 1), long.clone(), b"z\n".to_vec()].concat();

        let pieces: Vec<&[u8]> = whole_lines(&lines).collect();

        assert_eq!(pieces, [&b"x\n".repeat(PIPE_BYTES / 2)[..], b"x\n", &long, b"z\n"]);
    }
}
