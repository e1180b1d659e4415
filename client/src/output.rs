//! Where results go: standard output or a file that is whole or not there, tables or
//! JSON, and a bar for long work.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, IsTerminal, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use indicatif::{ProgressBar, ProgressStyle};
use keywright_client::{Failure, FailureKind, rewrap::Stop};
use tempfile::NamedTempFile;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

const BUFFER: usize = 1 << 20;

/// Standard input (also as `-`) or a file, and how long it is when that is known.
pub(crate) fn input(path: Option<&Path>) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    let Some(path) = path.filter(|p| *p != Path::new("-")) else {
        return Ok((Box::new(io::stdin()), None));
    };
    let missing = |e| Failure::io(path.display(), &e);
    let file = File::open(path).map_err(missing)?;
    let meta = file.metadata().map_err(missing)?;
    if meta.is_dir() {
        return Err(Failure::new(
            FailureKind::Usage,
            format!("{} is a directory; give a file", path.display()),
        ));
    }
    Ok((Box::new(file), meta.is_file().then_some(meta.len())))
}

/// The same, in large steps.
pub(crate) fn buffered(input: Box<dyn Read + Send>) -> BufReader<Box<dyn Read + Send>> {
    BufReader::with_capacity(BUFFER, input)
}

/// Standard output, or a file that appears when everything is done.
pub(crate) enum Sink {
    Stdout(BufWriter<io::Stdout>),
    /// A pipe or a device: written as it comes.
    Direct(BufWriter<File>),
    File {
        half: BufWriter<NamedTempFile>,
        path: PathBuf,
        mode: Mode,
    },
}

/// For whom a file is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everybody, if the file is new; else as it was.
    Shared,
    /// Its owner, if the file is new; else as it was.
    Secret,
    /// Its owner, in any case: a private key.
    Key {
        /// What is there may be overwritten.
        force: bool,
    },
}

impl Sink {
    /// `secret`: a new file is for its owner only.
    pub(crate) fn open(path: Option<&Path>, secret: bool) -> Result<Self, Failure> {
        let mode = if secret { Mode::Secret } else { Mode::Shared };
        Self::with_mode(path, mode)
    }

    /// For a private key, which has no other place: a file, and without `force` a new one.
    pub(crate) fn key(path: &Path, force: bool) -> Result<Self, Failure> {
        if path == Path::new("-") {
            let text = "a private key goes to a file, not to standard output; name one";
            return Err(Failure::new(FailureKind::Usage, text));
        }
        let there = fs::symlink_metadata(path);
        if !force && there.is_ok() {
            return Err(key_exists(path));
        }
        if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
            let text = format!("{} is no file; a private key goes to one", path.display());
            return Err(Failure::new(FailureKind::Usage, text));
        }
        Self::with_mode(Some(path), Mode::Key { force })
    }

    fn with_mode(path: Option<&Path>, mode: Mode) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self::Stdout(BufWriter::with_capacity(BUFFER, io::stdout())));
        };
        let error = |e| Failure::io(path.display(), &e);
        // Through a link, to the file it names: else what it held before would stay.
        let real = fs::canonicalize(path);
        let path = real.as_deref().unwrap_or(path);
        if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
            let file = OpenOptions::new().write(true).open(path).map_err(error)?;
            return Ok(Self::Direct(BufWriter::with_capacity(BUFFER, file)));
        }
        let folder = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let half = tempfile::Builder::new()
            .prefix(".keywright-")
            .tempfile_in(folder)
            .map_err(error)?;
        halves().push(half.path().to_owned());
        Ok(Self::File {
            half: BufWriter::with_capacity(BUFFER, half),
            path: path.to_owned(),
            mode,
        })
    }

    /// What is to be said when lines failed on the way: where to go on, or that there is
    /// nothing.
    pub(crate) fn lines_failed(&self, failure: Failure) -> Failure {
        match (failure.complete_lines(), self) {
            (None | Some(0), _) => failure,
            (Some(_), Self::File { path, .. }) => {
                let hint = format!("\nnothing was written to {}", path.display());
                failure.after_lines(None).hint(hint)
            }
            (Some(n), Self::Stdout(_) | Self::Direct(_)) => failure.hint(format_args!(
                "\nthe output is complete up to line {n}; go on with line {} (tail -n +{})",
                n + 1,
                n + 1
            )),
        }
    }

    /// Everything was written: make it visible.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Stdout(mut out) => out.flush().map_err(|e| Failure::io("standard output", &e)),
            Self::Direct(mut out) => out.flush().map_err(|e| Failure::io("output", &e)),
            Self::File { half, path, mode } => {
                let error = |e| Failure::io(path.display(), &e);
                let half = half.into_inner().map_err(|e| error(e.into_error()))?;
                // As the file was before; else as the umask says, or for the owner only.
                let bits = match (mode, fs::metadata(&path)) {
                    (Mode::Key { .. }, _) | (Mode::Secret, Err(_)) => 0o600,
                    (Mode::Shared | Mode::Secret, Ok(old)) => old.permissions().mode() & 0o7777,
                    (Mode::Shared, Err(_)) => 0o644,
                };
                half.as_file()
                    .set_permissions(fs::Permissions::from_mode(bits))
                    .map_err(error)?;
                half.as_file().sync_all().map_err(error)?;
                // Under its own name from here on; a signal must not take it away.
                let mut halves = halves();
                halves.retain(|h| h != half.path());
                if mode == (Mode::Key { force: false }) {
                    half.persist_noclobber(&path)
                        .map_err(|e| match e.error.kind() {
                            io::ErrorKind::AlreadyExists => key_exists(&path),
                            _ => error(e.error),
                        })?;
                } else {
                    half.persist(&path).map_err(|e| error(e.error))?;
                }
                Ok(())
            }
        }
    }
}

fn key_exists(path: &Path) -> Failure {
    Failure::new(
        FailureKind::State,
        format!(
            "{} exists already; name another file, or give --force and lose what is in it",
            path.display()
        ),
    )
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::Direct(out) => out.write(bytes),
            Self::File { half, .. } => half.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::Direct(out) => out.flush(),
            Self::File { half, .. } => half.flush(),
        }
    }
}

/// Below this nobody needs a bar.
const BAR_FROM_BYTES: u64 = 8 << 20;

/// A bar on standard error, when a person looks and it takes long.
pub(crate) fn bar(total: Option<u64>) -> ProgressBar {
    let style = |template: &str| {
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
    };
    match total {
        _ if !io::stderr().is_terminal() => ProgressBar::hidden(),
        Some(n) if n < BAR_FROM_BYTES => ProgressBar::hidden(),
        Some(n) => ProgressBar::new(n).with_style(style(
            "{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        )),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {bytes} {bytes_per_sec}")),
    }
}

/// JSON on standard output.
pub(crate) fn json(value: &serde_json::Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new(FailureKind::Other, e.to_string()))?;
    print(&format!("{text}\n"))
}

/// Text on standard output. A full disk is a failure like any other; a reader who has
/// seen enough is none, and ends us as it would any filter.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(BROKEN_PIPE),
        Err(e) => Err(Failure::io("standard output", &e)),
        Ok(()) => Ok(()),
    }
}

/// What a shell reports for SIGPIPE.
const BROKEN_PIPE: i32 = 128 + 13;

/// Half-written files, to be removed when a signal ends us: they may hold plaintext.
static HALVES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn halves() -> MutexGuard<'static, Vec<PathBuf>> {
    HALVES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens from now on; the future removes what is half-written and ends the process
/// when somebody asks it to end. To be run on a thread of the runtime: the main one may
/// wait for input that never comes.
pub(crate) fn end_on_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            let number = tokio::select! {
                _ = interrupt.recv() => 2,
                _ = terminate.recv() => 15,
                _ = hangup.recv() => 1,
            };
            // Whoever can stop in good order is asked to, once.
            if STOP.get().is_some_and(|stop| !stop.send_replace(true)) {
                anstream::eprintln!("keywright: stopping; once more to end at once");
                continue;
            }
            for half in halves().drain(..) {
                let _ = fs::remove_file(half);
            }
            std::process::exit(128 + number);
        }
    })
}

/// Set by work that can stop in good order.
static STOP: OnceLock<watch::Sender<bool>> = OnceLock::new();

/// From now on the first signal asks for an end and the second one makes it.
pub(crate) fn stop_on_signal() -> Stop {
    Stop::when(STOP.get_or_init(|| watch::channel(false).0).subscribe())
}
