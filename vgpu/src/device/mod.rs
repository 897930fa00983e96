//! The device: PCI hardware for the guest, planes for the host, and what the control socket makes
//! of them.

pub mod dispi;
pub mod edid;
pub mod events;
pub mod pci;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use crate::canvas::Surface;
use crate::export::{Access, Exporter};
use crate::fault::Faults;
use crate::format::Format;
use crate::memory::Memory;
use crate::personality::{Kind, Personality, Traits};
use crate::screen::{Cursor, Driver, Geometry, HostMode, MAX_SIDE, Picture, Place, Planes, Screen};
use crate::server::protocol::{IRQ_COUNT, PlaneInfo, edid_type_capability, region, region_flag};
use crate::stats::Stats;
use dispi::Dispi;
use edid::EdidRegion;
use events::{Change, DisplayEvents};
use pci::{ConfigSpace, Identity};

/// Size of BAR 2.
const MMIO_SIZE: u64 = 4096;
const MMIO_EDID_END: usize = 0x400;
const MMIO_DISPI: usize = 0x500;

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
    /// When a query first told the client what was on screen since then, in the same unit. `None`:
    /// none has so far, or none did before the next flip.
    pub seen: Option<u64>,
}

/// What GET_REGION_INFO tells about a region.
#[derive(Debug)]
pub struct RegionInfo {
    pub flags: u32,
    pub size: u64,
    pub capability: Option<[u8; 16]>,
    pub fd: Option<OwnedFd>,
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

    // The planes.

    /// What is on the primary plane.
    pub fn primary(&self) -> Option<Picture> {
        match self.screen.driver {
            Driver::Host if self.screen.on => {
                let mode = self.screen.mode.as_ref()?;
                mode.picture(mode.shown)
            }
            Driver::Host => None,
            Driver::Guest if self.traits.dispi => {
                let (geometry, offset) = self.dispi.frame_buffer()?;
                Some(Picture { geometry, memory: self.vram.clone(), offset })
            }
            Driver::Guest => (FIXED_MODE.bytes() <= self.vram.len()).then(|| Picture {
                geometry: FIXED_MODE,
                memory: self.vram.clone(),
                offset: 0,
            }),
        }
    }

    /// Where drawing into a picture must go: its memory, and the display region if the picture is
    /// shown there.
    pub fn surface(&self, picture: &Picture) -> Surface {
        let shown = self.primary().is_some_and(|primary| primary.is(picture));
        let mut targets = vec![(picture.memory.clone(), picture.offset)];
        if let (true, Driver::Host, Some((_, memory))) =
            (shown, self.screen.driver, self.personality.region())
        {
            targets.push((memory, 0));
        }
        Surface::new(picture.geometry, targets)
    }

    /// Takes the plane over from the guest.
    pub fn set_mode(&mut self, mode: HostMode) -> io::Result<()> {
        self.pci.set_mode(&mode.geometry);
        self.screen.mode = Some(mode);
        self.screen.driver = Driver::Host;
        self.screen.on = true;
        self.stats.mode_sets += 1;
        self.present()
    }

    /// Shows another buffer of the host-driven mode.
    pub fn flip(&mut self, to: Option<usize>) -> Result<usize, String> {
        let (Driver::Host, Some(mode)) = (self.screen.driver, &mut self.screen.mode) else {
            return Err("there is nothing to flip: set a mode first".into());
        };
        let count = mode.buffers.len();
        let to = to.unwrap_or((mode.shown + 1) % count);
        if to >= count {
            return Err(format!("buffer {to}: there are {count}"));
        }
        mode.shown = to;
        self.stats.flips += 1;
        self.present().map_err(|e| format!("cannot show buffer {to}: {e}"))?;
        Ok(to)
    }

    /// Notes that the picture on screen became another one; on a device with a display region, puts
    /// it there.
    pub fn present(&mut self) -> io::Result<()> {
        let Some(picture) = self.primary() else { return Ok(()) };
        if let (Driver::Host, Some((_, memory))) = (self.screen.driver, self.personality.region()) {
            picture.copy_to(&memory, picture.geometry.stride)?;
        }
        self.stamp(&picture);
        Ok(())
    }

    fn stamp(&mut self, picture: &Picture) {
        self.flips += 1;
        if self.stamps.len() == STAMPS {
            self.stamps.pop_front();
        }
        let time = crate::pace::now();
        let place = picture.place();
        self.stamps.push_back(Stamp { sequence: self.flips, place, time, seen: None });
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

    /// The sequence number of the next stamp.
    pub fn next_stamp(&self) -> u64 {
        self.flips + 1
    }

    /// Notes that a client was told what is on screen.
    fn seen(&mut self) {
        if let Some(stamp) = self.stamps.back_mut() {
            stamp.seen.get_or_insert_with(crate::pace::now);
        }
    }

    /// Notes that the picture on screen was drawn into.
    pub fn drawn(&mut self) {
        if let Some(picture) = self.primary() {
            self.stamp(&picture);
        }
    }

    /// Gives the plane back to the guest.
    pub fn give_to_guest(&mut self) {
        self.pci.set_mode(&FIXED_MODE);
        self.screen.driver = Driver::Guest;
        self.screen.mode = None;
        self.screen.on = true;
        self.changed(Change::Primary);
        self.set_cursor(None);
    }

    /// Enables or disables the host-driven plane.
    pub fn set_plane(&mut self, on: bool) -> io::Result<()> {
        self.screen.on = on;
        if !on {
            self.changed(Change::Primary);
        }
        self.present()
    }

    /// Shows another cursor, or none.
    pub fn set_cursor(&mut self, cursor: Option<Cursor>) {
        self.screen.cursor = cursor;
        self.changed(Change::Cursor);
    }

    /// Moves the cursor. Returns whether there is one.
    pub fn move_cursor(&mut self, x: i32, y: i32) -> bool {
        let Some(cursor) = &mut self.screen.cursor else { return false };
        (cursor.x, cursor.y) = (x, y);
        self.changed(Change::Cursor);
        true
    }

    fn with_planes<T>(&mut self, call: impl FnOnce(&mut dyn Personality, &Planes<'_>) -> T) -> T {
        let primary = self.primary();
        let reported_width = match (self.screen.driver, &self.screen.mode) {
            (Driver::Host, Some(mode)) => mode.reported_width,
            _ => primary.as_ref().map_or(0, |p| p.geometry.width),
        };
        let planes = Planes { primary, reported_width, screen: &self.screen };
        call(self.personality.as_mut(), &planes)
    }

    /// VFIO_DEVICE_QUERY_GFX_PLANE.
    pub fn query(&mut self, request: &PlaneInfo) -> Result<PlaneInfo, Errno> {
        if request.flags & PlaneInfo::PROBE != 0 {
            self.stats.probes += 1;
        } else {
            self.stats.queries += 1;
            *match request.drm_plane_type {
                PlaneInfo::PRIMARY => &mut self.stats.queries_primary,
                PlaneInfo::CURSOR => &mut self.stats.queries_cursor,
                _ => &mut self.stats.queries_other,
            } += 1;
        }
        if request.argsz < PlaneInfo::ARGSZ_MIN || !self.config.plane {
            return Err(Errno::INVAL);
        }
        let answer = self.with_planes(|personality, planes| personality.query(request, planes));
        let screen = request.flags & PlaneInfo::PROBE == 0
            && (request.flags == PlaneInfo::REGION || request.drm_plane_type == PlaneInfo::PRIMARY);
        if screen && answer.is_ok() {
            self.seen();
            if self.flip_on_query {
                // Without a mode of ours there is nothing to flip, which is no fault of the
                // query's.
                let _ = self.flip(None);
            }
        }
        answer
    }

    /// VFIO_DEVICE_GET_GFX_DMABUF.
    pub fn get(&mut self, id: u32) -> Result<OwnedFd, Errno> {
        self.stats.gets += 1;
        let answer = if self.config.plane {
            self.with_planes(|personality, planes| personality.get(id, planes))
        } else {
            Err(Errno::INVAL)
        };
        self.stats.get_errors += u64::from(answer.is_err());
        answer
    }

    /// The guest flips after the query, and the driver has forgotten the buffer when the get
    /// arrives. What the get fails with.
    pub fn race(&mut self) -> Errno {
        self.stats.gets += 1;
        self.stats.get_errors += 1;
        // Without a mode of ours there is nothing to flip; the error alone makes the race then.
        let _ = self.flip(None);
        self.personality.unknown_id()
    }

    // The PCI side.

    /// Index of the EDID region: the first beyond PCI's that the display region does not have.
    pub fn edid_index(&self) -> Option<u32> {
        let taken = matches!(self.personality.region(), Some((region::COUNT, _)));
        self.edid.is_some().then_some(region::COUNT + u32::from(taken))
    }

    /// Regions that the device says it has.
    pub fn region_count(&self) -> u32 {
        self.edid_index().map_or(region::COUNT, |index| index + 1)
    }

    /// Index of the display interrupt.
    pub fn display_irq(&self) -> Option<u32> {
        self.config.display_events.then_some(IRQ_COUNT)
    }

    /// Interrupts that the device says it has.
    pub fn irq_count(&self) -> u32 {
        IRQ_COUNT + u32::from(self.config.display_events)
    }

    pub fn region_info(&mut self, index: u32) -> Result<RegionInfo, Errno> {
        self.stats.region_infos += 1;
        let plain = |flags, size| RegionInfo { flags, size, capability: None, fd: None };
        let rw = region_flag::READ | region_flag::WRITE;
        if let Some(memory) = self.region_memory(index) {
            let fd = memory.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
            let size = memory.capacity();
            if index != region::BAR0 && !self.config.region_mmap {
                return Ok(plain(rw, size));
            }
            return Ok(RegionInfo { fd: Some(fd), ..plain(rw | region_flag::MMAP, size) });
        }
        if let (Some(edid), true) = (&self.edid, self.edid_index() == Some(index)) {
            let capability = Some(edid_type_capability());
            let info = plain(rw | region_flag::CAPS, edid.rules().region_size);
            return Ok(RegionInfo { capability, ..info });
        }
        match index {
            region::CONFIG => Ok(plain(rw, pci::SIZE as u64)),
            region::BAR2 if self.traits.dispi => Ok(plain(rw, MMIO_SIZE)),
            0..region::COUNT => Ok(plain(0, 0)),
            _ => Err(Errno::INVAL),
        }
    }

    /// The memory of the regions that are memory.
    fn region_memory(&self, index: u32) -> Option<Arc<Memory>> {
        if index == region::BAR0 {
            return Some(self.vram.clone());
        }
        self.personality.region().filter(|(i, _)| *i == index).map(|(_, memory)| memory)
    }

    /// REGION_READ.
    pub fn region_read(&mut self, index: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        if let (Some(edid), true) = (&self.edid, self.edid_index() == Some(index)) {
            self.stats.edid_reads += 1;
            return edid.read(offset, data);
        }
        self.stats.region_reads += 1;
        if let Some(memory) = self.region_memory(index) {
            return memory.read(offset, data).map_err(|_| Errno::INVAL);
        }
        match index {
            region::CONFIG => self.pci.read(range(offset, data.len(), pci::SIZE)?, data),
            region::BAR2 if self.traits.dispi => {
                let offset = range(offset, data.len(), 4096)?;
                match offset {
                    0..MMIO_EDID_END => match &self.edid {
                        Some(edid) => edid.guest_read(offset, data),
                        None => data.fill(0),
                    },
                    _ => match (dispi_index(offset), data.len()) {
                        (Some(index), 2) => {
                            data.copy_from_slice(&self.dispi.read(index).to_le_bytes());
                        }
                        _ => data.fill(0),
                    },
                }
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    /// REGION_WRITE.
    pub fn region_write(&mut self, index: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        if let (true, Some(edid)) = (self.edid_index() == Some(index), &mut self.edid) {
            self.stats.edid_writes += 1;
            let links = edid.links();
            let answer = edid.write(offset, data);
            self.stats.edid_blobs += edid.links() - links;
            return answer;
        }
        self.stats.region_writes += 1;
        if let Some(memory) = self.region_memory(index) {
            memory.write(offset, data).map_err(|_| Errno::INVAL)?;
            if self.screen.driver == Driver::Guest {
                self.changed(Change::Primary);
            }
            return Ok(());
        }
        match index {
            region::CONFIG => self.pci.write(range(offset, data.len(), pci::SIZE)?, data),
            region::BAR2 if self.traits.dispi => {
                let offset = range(offset, data.len(), 4096)?;
                if let (Some(index), Ok(value)) = (dispi_index(offset), data.try_into()) {
                    let before = self.dispi.frame_buffer();
                    self.dispi.write(index, u16::from_le_bytes(value));
                    if self.screen.driver == Driver::Guest && self.dispi.frame_buffer() != before {
                        self.changed(Change::Primary);
                    }
                }
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(())
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
}

/// The offset, if the access stays within `size` bytes.
fn range(offset: u64, bytes: usize, size: usize) -> Result<usize, Errno> {
    let start = usize::try_from(offset).map_err(|_| Errno::INVAL)?;
    match start.checked_add(bytes) {
        Some(end) if end <= size => Ok(start),
        _ => Err(Errno::INVAL),
    }
}

fn dispi_index(offset: usize) -> Option<usize> {
    let index = offset.checked_sub(MMIO_DISPI)? / 2;
    (offset % 2 == 0 && index < dispi::COUNT).then_some(index)
}
