//! EDID: tells the guest about its monitor.
//!
//! The device has a region with registers (`struct vfio_region_gfx_edid` of `linux/vfio.h`) and
//! room for an EDID blob. The order is: link down, size, blob, and, after a pause in which the
//! guest notices that its monitor is gone, link up. Sizes come in storms while a user drags a
//! window: only the newest counts, and at most one EDID is written per pause.

use std::fmt;
use std::io;
use std::mem::offset_of;
use std::time::Duration;

use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_GFX_LINK_STATE_DOWN, VFIO_DEVICE_GFX_LINK_STATE_UP,
    vfio_region_gfx_edid as Registers,
};

use crate::console::{Monitor, Severity};
use crate::device::{Device, Failure};
use crate::exchange::Notes;

/// How long the link stays down: as QEMU has always had it, and guests expect.
const LINK_DOWN: Duration = Duration::from_millis(100);

/// Time to the first retry after a failed write; each further one takes twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const RETRIES: u32 = 5;

/// Preferred if neither the user nor the device names a size: as in QEMU's EDIDs.
const DEFAULT_SIZE: (u32, u32) = (1280, 800);

/// No EDID is larger: 256 blocks of 128 bytes.
const MAX_BLOB: u32 = 256 * 128;

/// The EDID region of a device.
#[derive(Debug)]
pub struct Edid {
    region: u32,
    blob_offset: u64,
    blob_max: u32,
    max_width: u32,
    max_height: u32,
    default: (u32, u32),
    wanted: Option<Monitor>,
    advertised: Option<Monitor>,
    state: State,
    alarm: Option<Duration>,
    written: u64,
}

/// What the EDID needs of a watcher.
pub struct EdidHost<'a, D> {
    pub device: &'a D,
    pub now: Duration,
    pub notes: &'a mut Notes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The guest has been told what is wanted.
    Settled,
    /// The blob is written; the link goes up at the alarm. This many attempts failed before.
    LinkDown(u32),
    /// A write failed, and is retried at the alarm.
    Retrying(u32),
}

/// Why a device's EDID region is of no use, or a write to it failed.
#[derive(Debug)]
pub struct EdidError {
    action: &'static str,
    register: &'static str,
    error: io::Error,
}

impl std::error::Error for EdidError {}

impl fmt::Display for EdidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EDID region: {} {}: {}", self.action, self.register, self.error)
    }
}

impl Edid {
    /// Reads the device's limits. `None`: the device has no EDID region.
    ///
    /// `xres` and `yres` are preferred until a front end asks for another size; zero prefers the
    /// device's maximum, if it has one.
    pub fn open(device: &impl Device, xres: u32, yres: u32) -> Result<Option<Self>, EdidError> {
        let Some(region) = device.edid_region() else { return Ok(None) };
        let read =
            |register, offset: usize| {
                let mut value = [0; 4];
                device
                    .read_region(region, offset as u64, &mut value)
                    .map_err(|error| EdidError { action: "reading", register, error })?;
                Ok(u32::from_le_bytes(value))
            };
        let blob_offset = read("edid_offset", offset_of!(Registers, edid_offset))?;
        let blob_max = read("edid_max_size", offset_of!(Registers, edid_max_size))?;
        let max_width = read("max_xres", offset_of!(Registers, max_xres))?;
        let max_height = read("max_yres", offset_of!(Registers, max_yres))?;
        if blob_max < 128 {
            let error = io::Error::other(format!("{blob_max} bytes hold no EDID"));
            return Err(EdidError { action: "reading", register: "edid_max_size", error });
        }
        Ok(Some(Self {
            region,
            // The blob may lie outside of the region's size: gvt's does.
            blob_offset: blob_offset.into(),
            blob_max: blob_max.min(MAX_BLOB),
            max_width,
            max_height,
            default: (
                first_known([xres, max_width, DEFAULT_SIZE.0]),
                first_known([yres, max_height, DEFAULT_SIZE.1]),
            ),
            wanted: None,
            advertised: None,
            state: State::Settled,
            alarm: None,
            written: 0,
        }))
    }

    /// Shows the guest a monitor of this size. Zero pixels: the monitor is off.
    pub fn set_monitor<D: Device>(&mut self, wanted: Monitor, host: &mut EdidHost<'_, D>) {
        if self.wanted == Some(wanted) {
            return;
        }
        self.wanted = Some(wanted);
        match self.state {
            // The alarm will find it.
            State::LinkDown(_) => (),
            State::Settled | State::Retrying(_) => self.write(0, host),
        }
    }

    /// Returns the monitor that `xres` and `yres` describe.
    pub fn default_monitor(&self) -> Monitor {
        Monitor { width: self.default.0, height: self.default.1, ..Monitor::default() }
    }

    /// Returns the size that the guest prefers until a front end asks for another.
    pub fn preferred_size(&self) -> (u32, u32) {
        (at_most(self.default.0, self.max_width), at_most(self.default.1, self.max_height))
    }

    /// Returns when to call [`Edid::alarm`].
    pub fn due(&self) -> Option<Duration> {
        self.alarm
    }

    /// Takes the next step, which is due.
    pub fn alarm<D: Device>(&mut self, host: &mut EdidHost<'_, D>) {
        self.alarm = None;
        match self.state {
            State::Settled => (),
            State::Retrying(attempt) => self.write(attempt, host),
            State::LinkDown(attempt) => {
                if self.wanted != self.advertised {
                    return self.write(0, host);
                }
                self.state = State::Settled;
                match self.write_link(host.device, VFIO_DEVICE_GFX_LINK_STATE_UP) {
                    Ok(()) => host.notes.trace(&"EDID: link up"),
                    Err(error) => self.retry(attempt, &error, host),
                }
            }
        }
    }

    /// Stops telling the guest.
    pub fn close(&mut self) {
        self.alarm = None;
    }

    /// Returns the number of EDIDs written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    fn write<D: Device>(&mut self, attempt: u32, host: &mut EdidHost<'_, D>) {
        let Some(wanted) = self.wanted else { return };
        match self.try_write(wanted, host) {
            Ok(true) => {
                self.written += 1;
                self.advertised = Some(wanted);
                self.state = State::LinkDown(attempt);
                self.alarm = Some(host.now + LINK_DOWN);
            }
            Ok(false) => {
                self.state = State::Settled;
                self.alarm = None;
            }
            Err(error) => self.retry(attempt, &error, host),
        }
    }

    /// Writes an EDID. Returns whether the link must go up again.
    fn try_write<D: Device>(
        &self,
        wanted: Monitor,
        host: &mut EdidHost<'_, D>,
    ) -> Result<bool, EdidError> {
        self.write_link(host.device, VFIO_DEVICE_GFX_LINK_STATE_DOWN)?;
        host.notes.trace(&"EDID: link down");
        if wanted.width == 0 || wanted.height == 0 {
            return Ok(false);
        }
        let monitor = Monitor {
            width: at_most(wanted.width, self.max_width),
            height: at_most(wanted.height, self.max_height),
            max_width: self.max_width,
            max_height: self.max_height,
            ..wanted
        };
        let mut blob = vec![0; self.blob_max as usize];
        let len = host.device.generate_edid(&monitor, &mut blob).min(blob.len());
        let blob = &blob[..len];
        host.notes.trace(&format_args!("EDID: {}x{}, {len} bytes", monitor.width, monitor.height));

        // gvt takes the blob only once it knows its size.
        let size = u32::try_from(len).unwrap_or(self.blob_max);
        self.write_register(host.device, "edid_size", offset_of!(Registers, edid_size), size)?;
        host.device
            .write_region(self.region, self.blob_offset, blob)
            .map_err(|error| EdidError { action: "writing", register: "blob", error })?;
        Ok(true)
    }

    fn retry<D: Device>(&mut self, attempt: u32, error: &EdidError, host: &mut EdidHost<'_, D>) {
        match Failure::of(&error.error) {
            // The display reports it; there is no guest to tell any more.
            Failure::Gone => {
                self.state = State::Settled;
                return;
            }
            // As soon as the device may be called again.
            Failure::NotAsked => {
                self.state = State::Retrying(attempt);
                self.alarm = Some(host.now);
                return;
            }
            _ => (),
        }
        host.notes.say(Severity::Warning, error);
        if attempt < RETRIES {
            self.state = State::Retrying(attempt + 1);
            self.alarm = Some(host.now + FIRST_RETRY * 2u32.pow(attempt));
        } else {
            // The same size is tried again if asked for.
            self.wanted = None;
            self.state = State::Settled;
        }
    }

    fn write_link(&self, device: &impl Device, state: u32) -> Result<(), EdidError> {
        self.write_register(device, "link_state", offset_of!(Registers, link_state), state)
    }

    fn write_register(
        &self,
        device: &impl Device,
        register: &'static str,
        offset: usize,
        value: u32,
    ) -> Result<(), EdidError> {
        device
            .write_region(self.region, offset as u64, &value.to_le_bytes())
            .map_err(|error| EdidError { action: "writing", register, error })
    }
}

fn first_known(sizes: [u32; 3]) -> u32 {
    sizes.into_iter().find(|&size| size != 0).unwrap_or_default()
}

/// Limits a value to the device's maximum, if it has one.
fn at_most(value: u32, max: u32) -> u32 {
    if max == 0 { value } else { value.min(max) }
}
