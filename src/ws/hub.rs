//! The hub: what connects the rooms of a server's workers, in the process that looks after them.
//!
//! ```text
//! worker ── follow() ──┐
//! worker ── follow() ──┼── the hub: a thread of its own, which passes packets on and remembers every worker's counts
//! worker ── follow() ──┘
//! ```
//!
//! Rules:
//! 1. The hub has a thread of its own, with nothing of Python on it.
//! 2. What one worker tells goes to all the others. One that does not read has a bounded queue, and holds nobody up.
//! 3. A worker that comes is told the counts of the others; when one is gone, they are told that.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use socket2::Socket;
use tokio::{
    runtime::Builder,
    sync::mpsc,
    task::{LocalSet, spawn_local},
};

use super::{
    bus::{self, Outbox},
    packet::Packet,
    rooms::Rooms,
};

#[cfg(unix)]
type Stream = tokio::net::UnixStream;
#[cfg(windows)]
type Stream = tokio::net::TcpStream;

/// One end of a pair of sockets, as both Python and the system make them: of Unix's kind, or on Windows of TCP.
fn stream(socket: Socket) -> io::Result<Stream> {
    socket.set_nonblocking(true)?;
    Stream::from_std(socket.into())
}

impl Rooms {
    /// Has the rooms of this process be those of all whose sockets the same [`Hub`] has. From now on others are told; the future
    /// does that, and ends when the hub is gone.
    ///
    /// # Errors
    /// If the socket can't be used, or fails.
    pub fn follow(&self, socket: Socket) -> impl Future<Output = io::Result<()>> + use<> {
        let (rooms, outbox) = (self.clone(), self.outbox().clone());
        async move {
            let (mut reader, mut writer) = stream(socket)?.into_split();
            let reading = bus::read_all(&mut reader, |node, said, _| rooms.take_in(node, said));
            let writing = outbox.write_all(&mut writer, |room| Some(rooms.count_packet(room)));
            let ended = tokio::select! {
                ended = reading => ended,
                Err(error) = writing => Err(error),
            };
            outbox.set_open(false);
            ended
        }
    }
}

/// See the module. Dropped, it ends.
#[derive(Debug)]
pub struct Hub {
    /// None once it is to end.
    wanted: Option<mpsc::UnboundedSender<Vec<Socket>>>,
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    /// Starts the thread.
    ///
    /// # Arguments
    /// - `max_queue_bytes`: How much may wait for a worker that does not read.
    ///
    /// # Errors
    /// If the system has no thread, or no descriptor.
    pub fn start(max_queue_bytes: usize) -> io::Result<Self> {
        let (sender, wanted) = mpsc::unbounded_channel();
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let thread = thread::Builder::new().name("httpy-rooms".to_owned());
        let thread = thread.spawn(move || LocalSet::new().block_on(&runtime, run(wanted, max_queue_bytes)))?;
        Ok(Self { wanted: Some(sender), thread: Some(thread) })
    }

    /// Connects workers, by their sockets; one is gone when that ends. None of them misses what another of them has said, or
    /// says later.
    pub fn add(&self, sockets: Vec<Socket>) {
        if let Some(wanted) = &self.wanted {
            // It fails only if the thread has ended, which is when this is dropped.
            let _ = wanted.send(sockets);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        drop(self.wanted.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Which room of whom.
type Of = (u64, Arc<str>);

struct State {
    /// Those who are to be connected.
    wanted: mpsc::UnboundedReceiver<Vec<Socket>>,
    max_queue_bytes: usize,
    workers: HashMap<u64, Worker>,
    /// By which numbers they are known here.
    next: u64,
}

struct Worker {
    outbox: Rc<Outbox<Of>>,
    /// What it calls itself; zero until it has said that.
    node: u64,
    counts: HashMap<Arc<str>, u32>,
}

/// Connects workers until there will be no more.
async fn run(wanted: mpsc::UnboundedReceiver<Vec<Socket>>, max_queue_bytes: usize) {
    let state = State { wanted, max_queue_bytes, workers: HashMap::new(), next: 0 };
    let state = Rc::new(RefCell::new(state));
    while let Some(sockets) = poll_fn(|cx| state.borrow_mut().wanted.poll_recv(cx)).await {
        connect(&state, sockets);
    }
}

/// Has workers be among those who are told, all before any is heard.
fn connect(state: &Rc<RefCell<State>>, sockets: Vec<Socket>) {
    for socket in sockets {
        match stream(socket) {
            Ok(stream) => {
                let (own, outbox) = state.borrow_mut().add();
                drop(spawn_local(attend(state.clone(), own, outbox, stream)));
            }
            Err(error) => tracing::error!(%error, "a worker does not share its rooms"),
        }
    }
}

/// Looks after one worker until it is gone.
async fn attend(state: Rc<RefCell<State>>, own: u64, outbox: Rc<Outbox<Of>>, stream: Stream) {
    let (mut reader, mut writer) = stream.into_split();
    let reading = bus::read_all(&mut reader, |node, said, packet| {
        // Who was added before this was said is not to miss it.
        loop {
            let wanted = state.borrow_mut().wanted.try_recv();
            let Ok(sockets) = wanted else { break };
            connect(&state, sockets);
        }
        state.borrow_mut().pass_on(own, node, said, packet);
        0
    });
    let writing = outbox.write_all(&mut writer, |of| state.borrow().count_packet(of));
    let ended = tokio::select! {
        ended = reading => ended,
        Err(error) = writing => Err(error),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a worker shares its rooms no more");
    }
    state.borrow_mut().remove(own);
}

impl State {
    fn add(&mut self) -> (u64, Rc<Outbox<Of>>) {
        let outbox = Rc::new(Outbox::new(self.max_queue_bytes));
        for worker in self.workers.values() {
            for room in worker.counts.keys() {
                outbox.mark((worker.node, room.clone()));
            }
        }
        self.next += 1;
        let worker = Worker { outbox: outbox.clone(), node: 0, counts: HashMap::new() };
        self.workers.insert(self.next, worker);
        (self.next, outbox)
    }

    fn remove(&mut self, own: u64) {
        let Some(worker) = self.workers.remove(&own) else { return };
        if worker.node != 0 {
            let packet = Packet::Gone.write(worker.node);
            for other in self.workers.values() {
                other.outbox.insist(packet.clone());
            }
        }
    }

    /// Passes on what a worker tells.
    fn pass_on(&mut self, own: u64, node: u64, said: &Packet<'_>, packet: &Bytes) {
        let Some(worker) = self.workers.get_mut(&own) else { return };
        worker.node = node;
        let of = match said {
            Packet::Count { room, members } => {
                let known = worker.counts.get_key_value(*room).map(|(name, _)| name.clone());
                let name = known.unwrap_or_else(|| Arc::from(*room));
                match members {
                    0 => drop(worker.counts.remove(&name)),
                    members => drop(worker.counts.insert(name.clone(), *members)),
                }
                Some((node, name))
            }
            Packet::Message { .. } => None,
            // Nobody has to ask here, or to say that it is there; and that it is gone, the end of its connection says.
            _ => return,
        };
        for (id, other) in &self.workers {
            if *id != own {
                match &of {
                    Some(of) => other.outbox.mark(of.clone()),
                    None => other.outbox.push(|| packet.clone()),
                }
            }
        }
    }

    /// What is to be told of a count. None: its worker is gone, which is told otherwise.
    fn count_packet(&self, (node, room): &Of) -> Option<Bytes> {
        let worker = self.workers.values().find(|worker| worker.node == *node)?;
        let members = worker.counts.get(room).copied().unwrap_or(0);
        Some(Packet::Count { room, members }.write(*node))
    }
}
