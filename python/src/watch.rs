//! Watches folders for changes, for `httpy run --reload`.
//!
//! 1. Every folder is watched by itself, those below it one by one: so what nobody wants watched (a virtual environment, the
//!    packages of a front end) costs nothing, and does not use up the watches that the system has.
//! 2. An editor writes a file in several steps, and tools write many files: changes are told when it has been quiet.

use std::{
    collections::{BTreeSet, VecDeque},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use notify::{
    ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use pyo3::{exceptions::PyOSError, prelude::*};

use crate::errors;

/// How long it has to be quiet. 50 ms: longer than between the steps of saving a file, too short to be waited for.
const QUIET: Duration = Duration::from_millis(50);

/// The longest wait for quiet, so that a program that writes all the time does not keep changes from being told. 1 s.
const LONGEST: Duration = Duration::from_secs(1);

/// How often a wait looks for signals, which Python handles between two steps of its own.
const SIGNALS: Duration = Duration::from_millis(100);

/// Says which files in folders have changed.
///
/// `include` and `exclude` are patterns with `*` and `?`: of names, or with a slash of paths below the folder. What a
/// folder excludes is not looked into; neither is a virtual environment.
///
/// Raises `ConfigError` if a folder is not there, or the system allows no more watches.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Watch {
    seen: Arc<Seen>,
    rules: Rules,
    watcher: Mutex<RecommendedWatcher>,
}

#[pymethods]
impl Watch {
    #[new]
    #[pyo3(signature = (folders, include, exclude, /))]
    fn new(py: Python<'_>, folders: Vec<PathBuf>, include: Vec<String>, exclude: Vec<String>) -> PyResult<Self> {
        let mut roots = Vec::with_capacity(folders.len());
        for folder in folders {
            // As the system will name what is in it.
            let root = folder.canonicalize().ok().filter(|root| root.is_dir());
            roots.push(root.ok_or_else(|| errors::config(py, format!("no folder {} to watch", folder.display())))?);
        }
        let seen = Arc::new(Seen::default());
        let told = seen.clone();
        let watcher =
            notify::recommended_watcher(move |event| told.take(event)).map_err(|error| refused(py, &error))?;
        let watch = Self { seen, rules: Rules { roots, include, exclude }, watcher: Mutex::new(watcher) };
        for root in &watch.rules.roots {
            py.detach(|| watch.follow(root, &mut BTreeSet::new())).map_err(|error| refused(py, &error))?;
        }
        Ok(watch)
    }

    /// Waits for changes, at most so many seconds, and returns the paths of the files, sorted.
    ///
    /// Signals are handled meanwhile. Nothing has changed if it is empty.
    #[pyo3(signature = (timeout=None, /))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Vec<OsString>> {
        let deadline = timeout.map(|seconds| Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or_default());
        loop {
            let until = Instant::now() + SIGNALS;
            let until = deadline.map_or(until, |deadline| until.min(deadline));
            let changed = py.detach(|| self.wait_until(until)).map_err(|error| refused(py, &error))?;
            if !changed.is_empty() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(changed.into_iter().map(PathBuf::into_os_string).collect());
            }
            py.check_signals()?;
        }
    }
}

impl Watch {
    fn wait_until(&self, until: Instant) -> notify::Result<BTreeSet<PathBuf>> {
        let mut changed = BTreeSet::new();
        let mut first = None;
        loop {
            let now = Instant::now();
            let until = first.map_or(until, |first: Instant| (now + QUIET).min(first + LONGEST));
            let paths = self.seen.wait(until);
            if paths.is_empty() {
                return Ok(changed);
            }
            for path in paths {
                self.look(&path, &mut changed)?;
            }
            if !changed.is_empty() {
                first.get_or_insert(now);
            }
            if first.is_some_and(|first| Instant::now() >= first + LONGEST) {
                return Ok(changed);
            }
        }
    }

    /// Follows a folder that is new, and notes a file that is wanted.
    fn look(&self, path: &Path, changed: &mut BTreeSet<PathBuf>) -> notify::Result<()> {
        if self.rules.excludes(path) {
            return Ok(());
        }
        if path.is_dir() {
            return self.follow(path, changed);
        }
        if self.rules.includes(path) {
            changed.insert(path.to_owned());
        }
        Ok(())
    }

    /// Watches a folder and those below it, and notes the files in them, which came before they were watched.
    fn follow(&self, folder: &Path, files: &mut BTreeSet<PathBuf>) -> notify::Result<()> {
        let mut left = vec![folder.to_owned()];
        while let Some(folder) = left.pop() {
            if let Err(error) = lock(&self.watcher).watch(&folder, RecursiveMode::NonRecursive) {
                let is_root = self.rules.roots.contains(&folder);
                if is_root || matches!(error.kind, ErrorKind::MaxFilesWatch) {
                    return Err(error);
                }
                // Gone again, or nobody's to read: then there is nothing of the app in it.
                continue;
            }
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                // A link to a folder may lead in a circle.
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if self.rules.excludes(&path) {
                    continue;
                }
                if is_folder && !path.join("pyvenv.cfg").exists() {
                    left.push(path);
                } else if !is_folder && self.rules.includes(&path) {
                    files.insert(path);
                }
            }
        }
        Ok(())
    }
}

/// The paths of events, as the system tells them. Only paths: to watch more is nothing that this thread may do.
#[derive(Default)]
struct Seen {
    paths: Mutex<VecDeque<PathBuf>>,
    more: Condvar,
}

impl Seen {
    fn take(&self, event: notify::Result<Event>) {
        let Ok(event) = event else { return };
        // Reading a file is no change; closing one that was open for writing is, even if nothing was written: `touch`.
        if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
            return;
        }
        lock(&self.paths).extend(event.paths);
        self.more.notify_all();
    }

    fn wait(&self, until: Instant) -> VecDeque<PathBuf> {
        let mut paths = lock(&self.paths);
        while paths.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            paths = self.more.wait_timeout(paths, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut *paths)
    }
}

/// Which files are wanted.
struct Rules {
    roots: Vec<PathBuf>,
    include: Vec<String>,
    exclude: Vec<String>,
}

impl Rules {
    fn includes(&self, path: &Path) -> bool {
        let Some(below) = self.below(path) else { return false };
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        self.include.iter().any(|pattern| matches(pattern, if pattern.contains('/') { &below } else { &name }))
    }

    /// Whether the path, or a folder that it is in, is unwanted.
    fn excludes(&self, path: &Path) -> bool {
        let Some(below) = self.below(path) else { return true };
        let mut end = 0;
        below.split('/').any(|name| {
            end += name.len();
            let so_far = &below[..end];
            end += 1;
            self.exclude.iter().any(|pattern| matches(pattern, if pattern.contains('/') { so_far } else { name }))
        })
    }

    /// The path below the folder it was found in, with slashes; none for other places.
    fn below(&self, path: &Path) -> Option<String> {
        let root = self.roots.iter().filter(|root| path.starts_with(root)).max_by_key(|root| root.as_os_str().len())?;
        Some(path.strip_prefix(root).ok()?.to_string_lossy().replace('\\', "/"))
    }
}

/// Whether a text is what a pattern says: `*` is any characters, `?` is one.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and what it has taken so far: a later star makes earlier ones final.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some('?') => (p, t) = (p + 1, t + 1),
            Some(&c) if c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

fn refused(py: Python<'_>, error: &notify::Error) -> PyErr {
    match &error.kind {
        ErrorKind::MaxFilesWatch => errors::config(
            py,
            "the system allows no more watches: name fewer folders (reload_dir), exclude some (reload_exclude), or raise \
             fs.inotify.max_user_watches",
        ),
        _ => PyOSError::new_err(format!("can't watch for changes: {error}")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
