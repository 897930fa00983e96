//! The device: the parts of `hardware` and a `personality` put together. `planes` has what the host
//! sees, `regions` what the guest does.

mod planes;
mod regions;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::export::{Access, Exporter};
use crate::fault::Faults;
use crate::format::Format;
use crate::hardware::dispi::Dispi;
use crate::hardware::edid::{self, EdidRegion};
use crate::hardware::events::DisplayEvents;
use crate::hardware::pci::{ConfigSpace, Identity};
use crate::memory::Memory;
use crate::personality::{Kind, Personality, Traits};
use crate::protocol::Change;
use crate::screen::{Driver, Geometry, MAX_SIDE, Place, Screen};
use crate::stats::Stats;

/// How many flips are remembered.
const STAMPS: usize = 4096;

/// What a device without bochs registers shows from the start.
const FIXED_MODE: Geometry =
    Geometry { format: Format::XRGB8888, modifier: 0, width: 1024, height: 768, stride: 4096 };

/// What the command line says about the device.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
pub struct Config {
    pub personality: Kind,
    /// Bytes of VRAM, a power of two.
    pub vram: u64,
    /// `None`: what the personality has.
    pub pci_vendor: Option<u16>,
    /// `None`: what the personality has.
    pub edid_max: Option<(u32, u32)>,
    pub edid: bool,
    /// Whether there is an EDID region although the personality has none.
    pub edid_region: bool,
    pub plane: bool,
    pub gfx: bool,
    /// Whether there is a display interrupt.
    pub display_events: bool,
    pub write_multiple: bool,
    pub sealed: bool,
    pub read_only: bool,
    /// Whether a CPU can map dma-bufs although it could not map the personality's.
    pub mappable: bool,
    /// Whether dma-bufs are memfds even where there is /dev/udmabuf.
    pub memfd: bool,
    /// Whether the display region can be mapped.
    pub region_mmap: bool,
}

/// What a device reset does to a plane that the control socket drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReset {
    Keep,
    Off,
    Guest,
}

/// A flip that happened.
#[derive(Clone, Debug)]
pub struct Stamp {
    pub sequence: u64,
    pub place: Place,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// When a query first reported what was on screen since then, in the same unit. `None`:
    /// none has so far, or none did before the next flip.
    pub seen: Option<u64>,
}

/// The whole state behind the mutex.
#[derive(Debug)]
pub struct Device {
    pub config: Config,
    pub traits: Traits,
    pub personality: Box<dyn Personality>,
    pub screen: Screen,
    pub faults: Faults,
    pub stats: Stats,
    pub on_reset: OnReset,
    /// Whether each query of the screen is followed by a flip.
    pub flip_on_query: bool,
    pub stamps: VecDeque<Stamp>,
    pub has_udmabuf: bool,
    /// How the last scene went.
    pub last_scene: serde_json::Value,
    pub edid: Option<EdidRegion>,
    pub events: DisplayEvents,
    vram: Arc<Memory>,
    pci: ConfigSpace,
    dispi: Dispi,
    flips: u64,
}

impl Device {
    pub fn new(config: Config) -> io::Result<Self> {
        let vram = Arc::new(Memory::new("vgpu-vram", config.vram, config.sealed)?);
        let access = match config.personality {
            Kind::Gvt if !config.mappable => Access::WriteOnly,
            _ if config.read_only => Access::ReadOnly,
            _ => Access::ReadWrite,
        };
        let for_cpus = access != Access::WriteOnly;
        let exporter = Exporter::new(config.sealed && !config.memfd && for_cpus);
        let has_udmabuf = exporter.has_udmabuf();
        let personality = config.personality.build(&vram, config.sealed, exporter, access)?;
        let traits = personality.traits();
        let mut bars = [(0, 0); 6];
        let vram_size = u32::try_from(config.vram).map_err(|_| io::ErrorKind::InvalidInput)?;
        // Memory, 32 bits, prefetchable.
        bars[0] = (vram_size, 8);
        if traits.dispi {
            bars[2] = (4096, 0);
        }
        let edid_max = config.edid_max.unwrap_or(traits.edid_max);
        let added = || config.edid_region.then_some(edid::PLAIN);
        let rules = traits.edid.or_else(added).filter(|_| config.edid);
        let vendor = config.pci_vendor.unwrap_or(traits.identity.vendor);
        let identity = Identity { vendor, ..traits.identity };
        let mut device = Self {
            config,
            traits,
            personality,
            screen: Screen::new(),
            faults: Faults::default(),
            stats: Stats::default(),
            on_reset: OnReset::Keep,
            flip_on_query: false,
            stamps: VecDeque::new(),
            has_udmabuf,
            last_scene: serde_json::Value::Null,
            edid: rules.map(|rules| EdidRegion::new(rules, edid_max)),
            events: DisplayEvents::default(),
            pci: ConfigSpace::new(identity, bars),
            dispi: Dispi::new(config.vram),
            vram,
            flips: 0,
        };
        device.pci.set_mode(&FIXED_MODE);
        Ok(device)
    }

    /// The geometry of a mode on this device. Without a stride, the smallest that its driver would
    /// use.
    pub fn geometry(
        &self,
        width: u32,
        height: u32,
        format: Format,
        stride: Option<u32>,
        modifier: u64,
    ) -> Result<Geometry, String> {
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(format!("mode {width}x{height}: sides are 1 to {MAX_SIDE}"));
        }
        if format.pairs() && width % 2 != 0 {
            return Err(format!("mode {width}x{height}: {format} needs an even width"));
        }
        let row = width * format.bytes();
        let stride = stride.unwrap_or_else(|| row.next_multiple_of(self.traits.pitch_align));
        let geometry = Geometry { format, modifier, width, height, stride };
        if stride < row || stride % format.bytes() != 0 {
            return Err(format!(
                "stride {stride}: must be a multiple of {} and at least {row}",
                format.bytes()
            ));
        }
        if geometry.bytes() > u64::from(u32::MAX) {
            return Err(format!("mode {width}x{height} with stride {stride} exceeds 4 GiB"));
        }
        if let Some((_, memory)) = self.personality.region() {
            if geometry.bytes() > memory.capacity() {
                return Err(format!(
                    "mode {width}x{height} with stride {stride} takes {} bytes, the display region has {} \
                     (start the server with a larger --vram)",
                    geometry.bytes(),
                    memory.capacity()
                ));
            }
        }
        Ok(geometry)
    }

    /// DEVICE_RESET: the guest's hardware starts over.
    pub fn reset(&mut self) {
        self.stats.resets += 1;
        self.pci.reset();
        self.dispi.reset();
        match self.on_reset {
            OnReset::Keep => {}
            OnReset::Off => self.screen.on = self.screen.driver == Driver::Guest,
            OnReset::Guest => self.give_to_guest(),
        }
        self.changed(Change::Primary);
    }

    /// Tells the client, if it wants to know.
    fn changed(&mut self, what: Change) {
        if self.events.signal(what) {
            *match what {
                Change::Primary => &mut self.stats.events_primary,
                Change::Cursor => &mut self.stats.events_cursor,
            } += 1;
        }
    }
}
