//! Who goes next: processes are threads that take turns at the store.

use super::world::{Actor, Reported, Variant, World};
use crate::storage::gathered::Gathered;
use crate::storage::memory::MemoryStore;
use crate::storage::{Created, Folder, Key, Listed, Pending, Store, StoreError, StoreErrorKind};
use crate::units::ByteCount;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// Decides between possibilities.
pub trait Chooser {
    /// Which of these processes goes on; the first is the one that went before, if it still can.
    fn process(&mut self, can: &[usize], first_is_current: bool) -> usize;
    /// Which of so many things that nobody controls happens.
    fn chance(&mut self, options: usize) -> usize;
    /// Whether the reply to this call gets lost, which changes something or does not.
    fn loses_reply(&mut self, changes: bool) -> bool;
}

/// What may happen in a schedule besides turns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Freedom {
    /// Processes are interrupted while they make a plan, too.
    pub in_plans: bool,
    /// Replies get lost.
    pub lost_replies: bool,
}

/// All schedules with at most so many preemptions and lost replies, one after the other.
pub struct Exhaustive {
    preemptions: usize,
    losses: usize,
    left: usize,
    losses_left: usize,
    path: Vec<(usize, usize)>,
    at: usize,
}

impl Exhaustive {
    pub fn new(preemptions: usize, losses: usize) -> Self {
        let (left, losses_left) = (preemptions, losses);
        Self { preemptions, losses, left, losses_left, path: Vec::new(), at: 0 }
    }

    fn choose(&mut self, options: usize) -> usize {
        if options <= 1 {
            return 0;
        }
        if self.at == self.path.len() {
            self.path.push((0, options));
        }
        let (chosen, before) = self.path[self.at];
        assert_eq!(before, options, "the processes do not repeat themselves");
        self.at += 1;
        chosen
    }

    /// Goes on to the next schedule; false when that was the last.
    pub fn next(&mut self) -> bool {
        (self.at, self.left, self.losses_left) = (0, self.preemptions, self.losses);
        while let Some((chosen, options)) = self.path.pop() {
            if chosen + 1 < options {
                self.path.push((chosen + 1, options));
                return true;
            }
        }
        false
    }
}

impl Chooser for Exhaustive {
    fn process(&mut self, can: &[usize], first_is_current: bool) -> usize {
        if first_is_current && self.left == 0 {
            return 0;
        }
        let chosen = self.choose(can.len());
        if first_is_current && chosen > 0 {
            self.left -= 1;
        }
        chosen
    }

    fn chance(&mut self, options: usize) -> usize {
        self.choose(options)
    }

    fn loses_reply(&mut self, changes: bool) -> bool {
        // Trouble with a call that changes nothing ends the process, as if it were left lying there.
        let loses = changes && self.losses_left > 0 && self.choose(2) == 1;
        self.losses_left -= usize::from(loses);
        loses
    }
}

/// One schedule by a seed: processes of different and changing speeds.
pub struct Random {
    stream: blake3::OutputReader,
    speed: [u64; 8],
}

impl Random {
    pub fn new(seed: u64) -> Self {
        let stream = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut random = Self { stream, speed: [1; 8] };
        random.change();
        random
    }

    fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.stream.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit
    }

    fn change(&mut self) {
        for at in 0..self.speed.len() {
            self.speed[at] = [1, 30, 200, 1000][usize::try_from(self.below(4)).unwrap()];
        }
    }

    /// Who takes part.
    pub fn cast(&mut self) -> Vec<Actor> {
        let mut cast = vec![Actor::BackupB];
        for actor in Actor::ALL.iter().skip(1) {
            if self.below(2) == 0 {
                cast.push(*actor);
            }
        }
        while cast.len() > 6 {
            let at = usize::try_from(self.below(cast.len() as u64)).unwrap();
            cast.remove(at);
        }
        cast
    }
}

impl Chooser for Random {
    fn process(&mut self, can: &[usize], _: bool) -> usize {
        if self.below(40) == 0 {
            self.change();
        }
        let speeds: Vec<u64> = can.iter().map(|who| self.speed[who % 8]).collect();
        let mut at = self.below(speeds.iter().sum());
        for (option, speed) in speeds.iter().enumerate() {
            if at < *speed {
                return option;
            }
            at -= speed;
        }
        0
    }

    fn chance(&mut self, options: usize) -> usize {
        usize::try_from(self.below(options as u64)).unwrap()
    }

    fn loses_reply(&mut self, _: bool) -> bool {
        self.below(150) == 0
    }
}

/// What a process tells the scheduler.
enum Told {
    /// It waits before this call.
    Waits(usize, String),
    /// It lists, and keys came up meanwhile.
    Sees(usize),
    /// It ended.
    Ended(usize),
}

/// What a process may do.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Go,
    /// Go, and the reply gets lost.
    GoUnheard,
    /// What shows of those keys.
    Shows(usize),
}

/// A process's view of the store.
#[derive(Clone)]
pub struct Stepping {
    memory: MemoryStore,
    me: usize,
    tell: Sender<Told>,
    turn: Arc<Mutex<Receiver<Turn>>>,
    /// Goes on without waiting.
    quiet: Arc<AtomicBool>,
    /// Every request that creates, for whoever delivers it once more.
    sent: Arc<Mutex<BTreeMap<Key, Vec<u8>>>>,
}

/// The ways in which a listing may show what was created while it was under way.
const SHOWINGS: usize = 4;

impl Stepping {
    /// While it is quiet, the process is not interrupted.
    pub fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::SeqCst);
    }

    /// Whether an object is there, seen from outside: no turn, and no reply that gets lost.
    pub fn holds(&self, key: &Key) -> bool {
        self.memory.size(key).unwrap().is_some()
    }

    pub fn sent(&self) -> BTreeMap<Key, Vec<u8>> {
        self.sent.lock().unwrap().clone()
    }

    /// Waits for a turn.
    pub fn wait(&self, what: &str) -> Result<bool, StoreError> {
        if self.quiet.load(Ordering::SeqCst) {
            return Ok(true);
        }
        let _ = self.tell.send(Told::Waits(self.me, what.to_owned()));
        match self.turn.lock().unwrap().recv() {
            Ok(Turn::Go) => Ok(true),
            Ok(Turn::GoUnheard) => Ok(false),
            _ => Err(trouble("the schedule is over")),
        }
    }

    fn call<T>(
        &self,
        what: &str,
        key: &Key,
        run: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let heard = self.wait(&format!("{what} {key}"))?;
        let answer = run();
        if heard { answer } else { Err(trouble("the reply got lost")) }
    }
}

fn trouble(what: &str) -> StoreError {
    StoreError { kind: StoreErrorKind::Unavailable, what: what.to_owned(), source: None }
}

/// Objects that never change and never go: whoever reads them is seen by nobody.
fn is_settled(key: &Key) -> bool {
    let name = key.as_str();
    name == "walden.json" || name.contains("/cluster") || name.contains("/wal/")
}

impl Store for Stepping {
    fn describe(&self) -> String {
        self.memory.describe()
    }
    fn gathers(&self) -> bool {
        true
    }
    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created, StoreError> {
        self.call("create", key, || {
            self.sent.lock().unwrap().insert(key.clone(), bytes.to_vec());
            self.memory.create(key, bytes)
        })
    }
    fn begin(&self, key: &Key) -> Result<Box<dyn Pending>, StoreError> {
        Ok(Box::new(Gathered::new(self.clone(), key.clone())))
    }
    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.memory.make_durable(key)
    }
    fn read(&self, key: &Key, limit: ByteCount) -> Result<Vec<u8>, StoreError> {
        if is_settled(key) {
            return self.memory.read(key, limit);
        }
        self.call("read", key, || self.memory.read(key, limit))
    }
    fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        self.memory.read_range(key, range)
    }
    fn read_end(&self, key: &Key, length: u64) -> Result<(Vec<u8>, ByteCount), StoreError> {
        self.memory.read_end(key, length)
    }
    fn size(&self, key: &Key) -> Result<Option<ByteCount>, StoreError> {
        self.call("look for", key, || self.memory.size(key))
    }
    fn list(&self, folder: &Key, each: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        if !folder.as_str().ends_with("/catalog") || self.quiet.load(Ordering::SeqCst) {
            if !is_settled(folder) {
                self.wait(&format!("list {folder}"))?;
            }
            return self.memory.list(folder, each);
        }
        let all = |memory: &MemoryStore| {
            let mut all = BTreeMap::new();
            memory.list(folder, &mut |listed| {
                all.insert(listed.key, listed.size);
            })?;
            Ok::<_, StoreError>(all)
        };
        self.wait(&format!("begin to list {folder}"))?;
        let before = all(&self.memory)?;
        let heard = self.wait(&format!("end to list {folder}"))?;
        let after = all(&self.memory)?;
        let new = after.keys().filter(|key| !before.contains_key(*key)).count();
        let mut shows = 1;
        if new > 0 {
            let _ = self.tell.send(Told::Sees(self.me));
            shows = match self.turn.lock().unwrap().recv() {
                Ok(Turn::Shows(shows)) => shows,
                _ => return Err(trouble("the schedule is over")),
            };
        }
        for (key, size) in after {
            let is_retired = key.as_str().ends_with("-retired");
            let shown = before.contains_key(&key)
                || match shows {
                    0 => is_retired,
                    1 => true,
                    2 => false,
                    _ => !is_retired,
                };
            if shown {
                each(Listed { key, size });
            }
        }
        if heard { Ok(()) } else { Err(trouble("the reply got lost")) }
    }
    fn folder(&self, folder: Option<&Key>) -> Result<Folder, StoreError> {
        self.memory.folder(folder)
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.call("delete", key, || self.memory.delete(key))
    }
}

/// What the network waits for before it delivers again what was sent.
pub const DELIVER: &str = "deliver once more";

/// Runs one schedule to its end.
///
/// # Errors
/// What broke, and the turns that led there.
pub fn explore(
    world: &World,
    variant: Variant,
    cast: &[Actor],
    chooser: &mut dyn Chooser,
    freedom: Freedom,
) -> Result<(), String> {
    let memory = world.memory.snapshot();
    let reported = Arc::new(Mutex::new(Reported::default()));
    let sent = Arc::new(Mutex::new(BTreeMap::new()));
    let (tell, told) = channel();
    let mut trace = Vec::new();
    let mut broken = None;
    std::thread::scope(|scope| {
        let mut turns: Vec<Option<Sender<Turn>>> = Vec::new();
        for (me, actor) in cast.iter().enumerate() {
            let (turn, mine) = channel();
            turns.push(Some(turn));
            let store = Stepping {
                memory: memory.clone(),
                me,
                tell: tell.clone(),
                turn: Arc::new(Mutex::new(mine)),
                quiet: Arc::new(AtomicBool::new(false)),
                sent: Arc::clone(&sent),
            };
            let (reported, actor, tell) = (Arc::clone(&reported), *actor, tell.clone());
            scope.spawn(move || {
                // Told however it ends: the scheduler would wait for ever.
                struct End(Sender<Told>, usize);
                impl Drop for End {
                    fn drop(&mut self) {
                        let _ = self.0.send(Told::Ended(self.1));
                    }
                }
                let _end = End(tell, me);
                actor.run(&store, variant, !freedom.in_plans, &reported);
            });
        }
        // What each waits for; `None` once it has ended.
        let mut waits: Vec<Option<String>> = vec![None; cast.len()];
        let mut running = cast.len();
        let mut current = None;
        let (mut changed, mut last_known) = (true, Reported::default());
        loop {
            while running > 0 {
                match told.recv().expect("a process") {
                    Told::Waits(who, what) => {
                        waits[who] = Some(what);
                        running -= 1;
                    }
                    Told::Ended(who) => {
                        waits[who] = None;
                        turns[who] = None;
                        running -= 1;
                    }
                    Told::Sees(who) => {
                        let shows = chooser.chance(SHOWINGS);
                        if let Some(turn) = &turns[who] {
                            let _ = turn.send(Turn::Shows(shows));
                        }
                    }
                }
            }
            let known = reported.lock().unwrap().clone();
            let is_looked_at = changed || known != last_known;
            if let Some(what) = is_looked_at.then(|| world.check(&memory, &known).err()).flatten() {
                broken = Some(what);
                break;
            }
            last_known = known;
            let mut can: Vec<usize> = (0..cast.len()).filter(|who| waits[*who].is_some()).collect();
            let first_is_current = current.is_some_and(|who| can.contains(&who));
            if let Some(at) = can.iter().position(|who| Some(*who) == current) {
                can.swap(0, at);
            }
            if can.is_empty() {
                break;
            }
            let who = can[chooser.process(&can, first_is_current)];
            current = Some(who);
            let what = waits[who].take().unwrap_or_default();
            let changes = what.starts_with("create ") || what.starts_with("delete ");
            // Reading breaks nothing, and most turns are reads.
            changed = changes || what == DELIVER;
            let loses = freedom.lost_replies && chooser.loses_reply(changes);
            trace.push(format!("{:?}: {what}{}", cast[who], if loses { " (reply lost)" } else { "" }));
            if let Some(turn) = &turns[who] {
                running = 1;
                let _ = turn.send(if loses { Turn::GoUnheard } else { Turn::Go });
            }
        }
        turns.clear();
    });
    match broken {
        None => Ok(()),
        Some(what) => Err(format!("{what}\n  {}", trace.join("\n  "))),
    }
}
