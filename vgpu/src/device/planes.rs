//! The planes: what is on screen, who drives it, and what the driver tells the host about it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::canvas::Surface;
use crate::personality::Personality;
use crate::protocol::{Change, PlaneInfo};
use crate::screen::{Cursor, Driver, HostMode, Picture, Planes};

use super::{Device, FIXED_MODE, STAMPS, Stamp};

impl Device {
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

    /// The sequence number of the next stamp.
    pub fn next_stamp(&self) -> u64 {
        self.flips + 1
    }

    /// Notes that a query reported what is on screen.
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
                // Without a host-driven mode there is nothing to flip, which is no error of the
                // query.
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
        // Without a host-driven mode there is nothing to flip: then the error alone is the race.
        let _ = self.flip(None);
        self.personality.unknown_id()
    }
}
