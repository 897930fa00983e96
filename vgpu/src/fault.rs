//! Faults: what a device, its driver or its process may do wrong, on request.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use serde_json::{Value, json};

use crate::arguments::{number, number32};
use crate::protocol::{PlaneInfo, command};
use crate::wrong_fd::WrongFd;

/// The messages that can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Version,
    DeviceInfo,
    RegionInfo,
    IrqInfo,
    SetIrqs,
    RegionRead,
    RegionWrite,
    EdidRead,
    EdidWrite,
    Reset,
    Dma,
    Query,
    Get,
    Other,
}

const CALLS: [(&str, Call); 13] = [
    ("query", Call::Query),
    ("get", Call::Get),
    ("region_info", Call::RegionInfo),
    ("edid_read", Call::EdidRead),
    ("edid_write", Call::EdidWrite),
    ("region_read", Call::RegionRead),
    ("region_write", Call::RegionWrite),
    ("reset", Call::Reset),
    ("device_info", Call::DeviceInfo),
    ("irq_info", Call::IrqInfo),
    ("set_irqs", Call::SetIrqs),
    ("dma", Call::Dma),
    ("version", Call::Version),
];

impl Call {
    /// Which call a message is. `edid`: whether the region that it accesses is the EDID region.
    pub fn of(number: u16, edid: bool) -> Self {
        match number {
            command::VERSION => Self::Version,
            command::GET_INFO => Self::DeviceInfo,
            command::GET_REGION_INFO => Self::RegionInfo,
            command::GET_IRQ_INFO => Self::IrqInfo,
            command::SET_IRQS => Self::SetIrqs,
            command::REGION_READ if edid => Self::EdidRead,
            command::REGION_WRITE if edid => Self::EdidWrite,
            command::REGION_READ => Self::RegionRead,
            command::REGION_WRITE => Self::RegionWrite,
            command::RESET => Self::Reset,
            command::DMA_MAP | command::DMA_UNMAP => Self::Dma,
            command::QUERY_GFX_PLANE => Self::Query,
            command::GET_GFX_DMABUF => Self::Get,
            _ => Self::Other,
        }
    }

    fn name(self) -> &'static str {
        CALLS.iter().find(|(_, call)| *call == self).map_or("other", |(name, _)| name)
    }
}

/// What happens instead of, or to, the right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The call fails without having been tried.
    Errno(Errno),
    /// The call is not tried, and never answered.
    Silence,
    /// The answer is late by this many milliseconds; all that follows waits.
    Delay(u64),
    /// The answer is longer or shorter by this many bytes.
    Size(i64),
    NoFd,
    /// One descriptor more than there should be.
    ExtraFd(WrongFd),
    /// Before the answer come this many unknown requests, and as many unexpected answers.
    Chatter(u64),
    /// The descriptor leads elsewhere.
    Fd(WrongFd),
    /// The dma-buf can be neither mapped nor read.
    Unreadable,
    /// The connection closes.
    Hangup,
    /// Bytes of the answer's payload are replaced: offset and new bytes.
    Set(Vec<(usize, Vec<u8>)>),
    /// The guest flips between query and get, and the driver does not know the old buffer any more.
    IdRace,
}

#[derive(Debug)]
struct Fault {
    /// `None` is any call but the version.
    call: Option<Call>,
    action: Action,
    /// How often it still happens; `None` until it is cleared.
    left: Option<u64>,
    /// Only for this region or interrupt.
    index: Option<u32>,
    /// Only for this plane.
    plane: Option<u32>,
    text: String,
}

/// The faults in force. The first that matches a call applies.
#[derive(Debug, Default)]
pub struct Faults {
    list: Vec<Fault>,
    /// What descriptors that were given need to do what they do.
    kept: Vec<OwnedFd>,
}

/// A call that is about to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    pub call: Call,
    /// Of a region or an interrupt.
    pub index: Option<u32>,
    pub plane: Option<u32>,
}

impl Faults {
    /// Adds a fault from the words after `fault`.
    pub fn add(&mut self, words: &[&str]) -> Result<(), String> {
        let (mut count, mut index, mut plane) = (None, None, None);
        let mut plain = Vec::new();
        for word in words {
            if let Some(value) = word.strip_prefix("count=") {
                count = Some(number(value)?);
            } else if let Some(value) = word.strip_prefix("index=") {
                index = Some(number32(value)?);
            } else if let Some(value) = word.strip_prefix("plane=") {
                plane = Some(match value {
                    "primary" => PlaneInfo::PRIMARY,
                    "cursor" => PlaneInfo::CURSOR,
                    _ => return Err(format!("plane '{value}': primary or cursor")),
                });
            } else {
                plain.push(*word);
            }
        }
        let [call, kind, args @ ..] = plain.as_slice() else {
            return Err("fault CALL KIND [ARG] [count=N] [index=N] [plane=primary|cursor]".into());
        };
        let call = match *call {
            "any" => None,
            name => Some(
                CALLS.iter().find(|(n, _)| *n == name).map(|(_, call)| *call).ok_or_else(|| {
                    let names: Vec<&str> = CALLS.iter().map(|(n, _)| *n).collect();
                    format!("no call '{name}' (any, {})", names.join(", "))
                })?,
            ),
        };
        let action = action(call, kind, args)?;
        let left = count.or((action == Action::IdRace).then_some(1));
        self.list.push(Fault { call, action, left, index, plane, text: words.join(" ") });
        Ok(())
    }

    pub fn clear(&mut self) {
        self.list.clear();
        self.kept.clear();
    }

    /// Keeps this open until the faults are cleared.
    pub fn keep(&mut self, fd: OwnedFd) {
        self.kept.push(fd);
    }

    /// What goes wrong with this call, which is counted as gone wrong.
    pub fn take(&mut self, subject: Subject) -> Option<Action> {
        let at = self.list.iter().position(|fault| {
            let call = match fault.call {
                None => subject.call != Call::Version,
                Some(call) => call == subject.call,
            };
            call && fault.index.is_none_or(|index| subject.index == Some(index))
                && fault.plane.is_none_or(|plane| subject.plane == Some(plane))
        })?;
        let fault = &mut self.list[at];
        let action = fault.action.clone();
        if let Some(left) = &mut fault.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.list.remove(at);
            }
        }
        Some(action)
    }

    pub fn json(&self) -> Value {
        self.list
            .iter()
            .map(|fault| {
                json!({
                    "call": fault.call.map_or("any", Call::name),
                    "fault": fault.text,
                    "left": fault.left,
                })
            })
            .collect()
    }
}

fn action(call: Option<Call>, kind: &str, args: &[&str]) -> Result<Action, String> {
    let one = || match args {
        [arg] => Ok(*arg),
        _ => Err(format!("fault {kind} takes one argument")),
    };
    let none = |action| match args {
        [] => Ok(action),
        _ => Err(format!("fault {kind} takes no argument")),
    };
    if let Some(given) = kind.strip_prefix("extra-fd=") {
        return none(Action::ExtraFd(WrongFd::parse(given)?));
    }
    if let Some(given) = kind.strip_prefix("fd=") {
        return match call {
            Some(Call::Get | Call::RegionInfo) => none(Action::Fd(WrongFd::parse(given)?)),
            _ => Err("only get and region_info give descriptors".into()),
        };
    }
    match kind {
        "errno" => Ok(Action::Errno(errno(one()?)?)),
        "silence" => none(Action::Silence),
        "delay" => Ok(Action::Delay(number(one()?)?)),
        "size" => {
            let delta = one()?;
            let range = -4096..=4096;
            match delta.parse() {
                Ok(bytes) if range.contains(&bytes) => Ok(Action::Size(bytes)),
                _ => Err(format!("size '{delta}': a number from -4096 to 4096")),
            }
        }
        "no-fd" => none(Action::NoFd),
        "extra-fd" => none(Action::ExtraFd(WrongFd::Path("/dev/null".into()))),
        "chatter" => Ok(Action::Chatter(number(one()?)?)),
        "unreadable" if call == Some(Call::Get) => none(Action::Unreadable),
        "unreadable" => Err("only a get gives dma-bufs".into()),
        "hangup" => none(Action::Hangup),
        "set" => one()?
            .split(',')
            .map(|field| set(call, field))
            .collect::<Result<_, _>>()
            .map(Action::Set),
        "id-race" if call == Some(Call::Get) => none(Action::IdRace),
        "id-race" => Err("only a get can race".into()),
        _ => Err(format!(
            "no fault '{kind}' (errno, silence, delay, size, no-fd, extra-fd, extra-fd=, chatter, fd=, unreadable, hangup, set, id-race)"
        )),
    }
}

/// One `FIELD=VALUE` for an answer's payload.
fn set(call: Option<Call>, text: &str) -> Result<(usize, Vec<u8>), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("'{text}' is not FIELD=VALUE"))?;
    let fields = fields(call)?;
    let (_, offset, bytes) = fields.iter().find(|(n, ..)| *n == name).ok_or_else(|| {
        let names: Vec<&str> = fields.iter().map(|(n, ..)| *n).collect();
        format!("no field '{name}' ({})", names.join(", "))
    })?;
    let number = match value.as_bytes() {
        // A format by its name, known to us or not.
        &[a, b, c, d] if name == "drm_format" && !value.starts_with("0x") => {
            u64::from(u32::from_le_bytes([a, b, c, d]))
        }
        _ => number(value)?,
    };
    if *bytes == 4 && number > u64::from(u32::MAX) {
        return Err(format!("{name}={value} does not fit 32 bits"));
    }
    Ok((*offset, number.to_le_bytes()[..*bytes].to_vec()))
}

/// The fields of a call's answer: name, offset, bytes.
fn fields(call: Option<Call>) -> Result<Vec<(&'static str, usize, usize)>, String> {
    const REGION: [(&str, usize, usize); 5] = [
        ("argsz", 0, 4),
        ("flags", 4, 4),
        ("cap_offset", 12, 4),
        ("size", 16, 8),
        ("offset", 24, 8),
    ];
    const DEVICE: [(&str, usize, usize); 4] =
        [("argsz", 0, 4), ("flags", 4, 4), ("num_regions", 8, 4), ("num_irqs", 12, 4)];
    const IRQ: [(&str, usize, usize); 9] = [
        ("argsz", 0, 4),
        ("flags", 4, 4),
        ("index", 8, 4),
        ("count", 12, 4),
        ("cap_offset", 16, 4),
        ("cap_id", 24, 4),
        ("cap_next", 28, 4),
        ("cap_type", 32, 4),
        ("cap_subtype", 36, 4),
    ];
    const GET: [(&str, usize, usize); 4] =
        [("argsz", 0, 4), ("flags", 4, 4), ("dmabuf_id", 8, 4), ("reserved", 12, 4)];

    match call {
        Some(Call::Query) => {
            let (modifier, offset) = PlaneInfo::MODIFIER;
            let words = PlaneInfo::FIELDS.into_iter().map(|(name, offset)| (name, offset, 4));
            Ok(words.chain([(modifier, offset, 8)]).collect())
        }
        Some(Call::Get) => Ok(GET.to_vec()),
        Some(Call::RegionInfo) => Ok(REGION.to_vec()),
        Some(Call::DeviceInfo) => Ok(DEVICE.to_vec()),
        Some(Call::IrqInfo) => Ok(IRQ.to_vec()),
        Some(Call::RegionRead | Call::EdidRead) => Ok(vec![("data", 16, 4)]),
        _ => Err("the fields of this call's answer cannot be set".into()),
    }
}

fn errno(name: &str) -> Result<Errno, String> {
    const NAMES: [(&str, Errno); 21] = [
        ("EPERM", Errno::PERM),
        ("ENOENT", Errno::NOENT),
        ("EINTR", Errno::INTR),
        ("EIO", Errno::IO),
        ("ENXIO", Errno::NXIO),
        ("EBADF", Errno::BADF),
        ("EAGAIN", Errno::AGAIN),
        ("ENOMEM", Errno::NOMEM),
        ("EACCES", Errno::ACCESS),
        ("EFAULT", Errno::FAULT),
        ("EBUSY", Errno::BUSY),
        ("ENODEV", Errno::NODEV),
        ("EINVAL", Errno::INVAL),
        ("EMFILE", Errno::MFILE),
        ("ENOTTY", Errno::NOTTY),
        ("ENOSPC", Errno::NOSPC),
        ("ERANGE", Errno::RANGE),
        ("ENOSYS", Errno::NOSYS),
        ("EPROTO", Errno::PROTO),
        ("EOPNOTSUPP", Errno::OPNOTSUPP),
        ("ETIMEDOUT", Errno::TIMEDOUT),
    ];
    if let Some((_, errno)) = NAMES.iter().find(|(n, _)| *n == name) {
        return Ok(*errno);
    }
    if let Ok(number @ 1..=4095) = name.parse() {
        return Ok(Errno::from_raw_os_error(number));
    }
    let names: Vec<&str> = NAMES.iter().map(|(n, _)| *n).collect();
    Err(format!("no errno '{name}' (a number from 1 to 4095, or {})", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(faults: &mut Faults, text: &str) -> Result<(), String> {
        faults.add(&text.split_whitespace().collect::<Vec<_>>())
    }

    fn subject(call: Call) -> Subject {
        Subject { call, index: None, plane: None }
    }

    #[test]
    fn a_count_runs_out_and_no_count_does_not() {
        let mut faults = Faults::default();
        add(&mut faults, "get errno ENOENT count=2").unwrap();
        add(&mut faults, "query silence").unwrap();
        let taken: Vec<_> = (0..3).map(|_| faults.take(subject(Call::Get)).is_some()).collect();
        assert_eq!(taken, [true, true, false]);
        for _ in 0..3 {
            assert_eq!(faults.take(subject(Call::Query)), Some(Action::Silence));
        }
        faults.clear();
        assert_eq!(faults.take(subject(Call::Query)), None);
    }

    #[test]
    fn any_spares_the_version() {
        let mut faults = Faults::default();
        add(&mut faults, "any hangup").unwrap();
        assert_eq!(faults.take(subject(Call::Version)), None);
        assert_eq!(faults.take(subject(Call::Reset)), Some(Action::Hangup));
    }

    #[test]
    fn filters_pick_region_and_plane() {
        let mut faults = Faults::default();
        add(&mut faults, "region_info no-fd index=9").unwrap();
        add(&mut faults, "query errno 5 plane=cursor").unwrap();
        assert_eq!(faults.take(subject(Call::RegionInfo)), None);
        let nine = Subject { index: Some(9), ..subject(Call::RegionInfo) };
        assert_eq!(faults.take(nine), Some(Action::NoFd));
        let cursor = Subject { plane: Some(2), ..subject(Call::Query) };
        assert_eq!(faults.take(Subject { plane: Some(1), ..cursor }), None);
        assert_eq!(faults.take(cursor), Some(Action::Errno(Errno::IO)));
    }

    #[test]
    fn fields_become_bytes() {
        let mut faults = Faults::default();
        add(&mut faults, "query set width=0xffffffff,drm_format_mod=2,drm_format=ZZ99").unwrap();
        let Some(Action::Set(fields)) = faults.take(subject(Call::Query)) else { panic!() };
        assert_eq!(
            fields,
            [(24, vec![0xff; 4]), (16, vec![2, 0, 0, 0, 0, 0, 0, 0]), (12, b"ZZ99".to_vec())]
        );
    }

    #[test]
    fn nonsense_is_refused_with_what_is_possible() {
        let mut faults = Faults::default();
        for (text, hint) in [
            ("", "CALL KIND"),
            ("frob errno EIO", "query"),
            ("query frob", "silence"),
            ("query errno EFROB", "EINVAL"),
            ("query errno", "one argument"),
            ("query silence 3", "no argument"),
            ("query fd=tcp", "only get and region_info"),
            ("get fd=udp", "absolute path"),
            ("query set height", "FIELD=VALUE"),
            ("query set depth=3", "drm_format"),
            ("query set width=4294967296", "32 bits"),
            ("query id-race", "get"),
            ("query size 5000", "4096"),
            ("any set width=1", "cannot be set"),
            ("get errno EIO count=x", "not a number"),
        ] {
            let error = add(&mut faults, text).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
        assert_eq!(faults.json(), json!([]));
    }
}
