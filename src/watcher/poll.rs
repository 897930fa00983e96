//! One poll of the device: what it shows, and what to do when it fails.

use std::sync::Arc;
use std::time::Duration;

use crate::allocate::OutOfMemory;
use crate::clock::Clock;
use crate::console::{ScanoutSupport, Severity};
use crate::damage::{self, Source};
use crate::device::{Device, Failure};
use crate::exchange::{
    Block, CursorView, Drawn, Lease, Remark, Report, SharedPicture, Shown, Verdict, View,
};
use crate::format::Conversion;
use crate::plane::{Geometry, Plane, PlaneKind};
use crate::pool::{Buffer, Key};

use super::budget::{Budget, REST_SHARE};
use super::direct::Direct;
use super::picture::Drawing;
use super::problem::Problem;
use super::region::RegionPlane;
use super::{Pace, Planes, Reported, Watcher, dmabuf};

/// The answer of a flip check is reused by a poll this soon after: no guest flips as fast.
const FRESH: Duration = Duration::from_millis(1);

/// Maximum number of failed polls in a row before the picture goes: a mode set takes a moment.
pub(crate) const PATIENCE: u32 = 3;

/// How long a device is left alone that is gone or silent, or sent a descriptor that was refused.
pub(crate) const BACKOFF: Duration = Duration::from_secs(1);

/// What is wanted of a poll.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PollRequest {
    /// The picture must be exact: no other poll follows soon.
    pub exact: bool,
    /// What became of the last report; if necessary, the same answer is used again.
    pub verdict: Verdict,
}

impl PollRequest {
    fn again(self) -> bool {
        self.verdict != Verdict::Settled
    }
}

/// Result of a flip check, a poll of the primary plane besides the front ends' refreshes.
#[derive(Debug)]
pub(crate) enum FlipCheck {
    /// Nothing new, or it was not time yet.
    Nothing,
    /// The guest flipped, or its plane went on or off.
    Changed,
    /// The device does not answer.
    Failed(Box<Report>),
}

impl<D: Device, T: Clock> Watcher<D, T> {
    /// Polls the device. `None` if it is left alone, or was reset meanwhile.
    pub(crate) fn poll(&mut self, request: PollRequest) -> Option<Report> {
        let now = self.clock.now();
        self.budget = Budget::new(now);
        if request.exact {
            self.found = None;
        }
        if !request.again() {
            self.exact |= request.exact;
        }
        if self.backs_off(now) {
            return None;
        }
        self.unread = None;
        let mut cursor = CursorView::Unchanged;
        let seen = match self.planes {
            Planes::DmaBuf(_) => self.poll_dmabuf(now, request.again()),
            Planes::Region(_) => self.poll_region(request),
        };
        self.reported = match seen {
            Ok(View::Picture(_)) => Reported::Drawn,
            Ok(View::Buffer(..) | View::Memory { .. }) => Reported::Given,
            _ => Reported::Nothing,
        };
        let view = match seen {
            Ok(View::Off) => {
                self.health.failures = 0;
                self.mode = None;
                View::Off
            }
            Ok(view @ View::Undecided(_)) => view,
            Ok(view) => {
                self.health.failures = 0;
                cursor = self.poll_cursor(matches!(view, View::Buffer(..)));
                view
            }
            // The reset will be followed by another poll.
            Err(problem) if problem.failure() == Some(Failure::NotAsked) => return None,
            Err(problem) => self.fail(&problem),
        };
        Some(self.report(view, cursor))
    }

    pub(super) fn report(&self, view: View, cursor: CursorView) -> Report {
        let Self { epoch, one_shot, redraw, .. } = *self;
        Report { epoch, one_shot, redrawn: redraw, view, cursor, captured: None }
    }

    /// Something changed: the next picture must be exact.
    pub(crate) fn expect_change(&mut self) {
        self.exact = true;
    }

    /// Whether the device is left alone, after failures or because a front end has not released the
    /// last picture.
    pub(super) fn backs_off(&self, now: Duration) -> bool {
        self.blocked == Block::Held || now < self.health.backoff_until
    }

    fn poll_dmabuf(&mut self, now: Duration, again: bool) -> Result<View, Problem> {
        let Planes::DmaBuf(planes) = &mut self.planes else { return Ok(View::Off) };
        let known = planes.primary().copied().filter(|_| again);
        let fresh = self.found.as_ref().filter(|(_, at)| now.saturating_sub(*at) <= FRESH);
        let answer = known.or(fresh.map(|(info, _)| *info));
        let kind = PlaneKind::Primary;
        let time = (self.budget, &self.clock);
        let shown = planes.poll(&self.device, time, kind, answer.as_ref(), &mut self.counters)?;
        // An answer that the pacer knows does not count twice.
        let asked = answer.is_none() || planes.primary() != answer.as_ref();
        if let (Pace::Flips(pacer), true) = (&mut self.pace, asked) {
            pacer.poll(self.clock.now(), planes.primary());
        }
        let Some((key, plane)) = shown else { return Ok(View::Off) };
        self.note_mode(&plane);
        let Some(lease) = self.lease(key, &plane, kind) else { return Ok(View::Off) };
        // Front ends and their clients map what they import.
        let support = if self.config.import && lease.buffer.can_be_mapped() {
            self.supports.of(key, plane.geometry.format)
        } else {
            Some(ScanoutSupport::None)
        };
        match support {
            None => Ok(View::Undecided(lease)),
            Some(ScanoutSupport::Import) => Ok(View::Buffer(lease, ScanoutSupport::Import)),
            Some(ScanoutSupport::ReadBack)
                if self.config.read_back || !self.is_fast_to_read(key, &plane) =>
            {
                // Otherwise the front end would wait, on the main loop.
                lease.buffer.wait_for_writers().map_err(|error| Problem::Read {
                    what: "dma-buf with id",
                    handle: plane.handle,
                    error,
                })?;
                Ok(View::Buffer(lease, ScanoutSupport::ReadBack))
            }
            Some(support) => {
                self.unread = Some((lease.clone(), support));
                let read = self.read(lease, support)?;
                self.unread = None;
                Ok(read)
            }
        }
    }

    fn is_fast_to_read(&mut self, key: Key, plane: &Plane) -> bool {
        let Planes::DmaBuf(planes) = &mut self.planes else { return false };
        Conversion::to_xrgb8888(plane.geometry.format).is_some()
            && planes.is_fast_to_read(key, PlaneKind::Primary, &plane.geometry, &self.clock)
    }

    /// Reads a dma-buf for a surface.
    fn read(&mut self, lease: Lease, support: ScanoutSupport) -> Result<View, Problem> {
        let (key, plane) = (lease.key, lease.plane);
        let Planes::DmaBuf(planes) = &mut self.planes else { return Ok(View::Off) };
        let Some(buffer) = planes.pool.get_mut(key) else { return Ok(View::Off) };
        let (what, handle, format) = ("dma-buf with id", plane.handle, plane.geometry.format);
        let conversion = Conversion::to_xrgb8888(format)
            .ok_or(Problem::NoConversion { format, with_gl: true })?;
        buffer.memory().map_err(|error| Problem::Map { what, handle, error })?;
        if self.shown.key() != Some(key) {
            self.exact = true;
        }
        let comparison = self.closeness();
        self.prepare_surface(&plane, conversion)?;
        let Self { drawing: Some(drawing), planes: Planes::DmaBuf(planes), .. } = self else {
            return Ok(View::Off);
        };
        let Some(Ok(memory)) = planes.pool.get_mut(key).map(Buffer::memory) else {
            return Ok(View::Off);
        };
        let _reading =
            memory.begin_reading().map_err(|error| Problem::Read { what, handle, error })?;
        let damage = drawing
            .update(&plane.geometry, conversion, memory, comparison)
            .map_err(|error| Problem::Read { what, handle, error })?;
        let lease = Some((lease, support));
        Ok(View::Picture(Drawn { plane, lease, picture: drawing.picture(), damage }))
    }

    fn poll_region(&mut self, request: PollRequest) -> Result<View, Problem> {
        let Planes::Region(region) = &mut self.planes else { return Ok(View::Off) };
        let Some((plane, conversion, moved)) =
            region.poll(&self.device, request.again(), &mut self.counters)?
        else {
            return Ok(View::Off);
        };
        if request.verdict != Verdict::NoMemory {
            if let Some(view) = self.poll_memory(&plane, conversion) {
                self.note_mode(&plane);
                return Ok(view);
            }
        }
        self.exact |= moved;
        let closeness = self.closeness();
        self.prepare_surface(&plane, conversion)?;
        let Self {
            drawing: Some(drawing),
            planes: Planes::Region(region),
            device,
            clock,
            budget,
            ..
        } = self
        else {
            return Ok(View::Off);
        };
        let unreadable = |region: &mut RegionPlane, error| {
            region.invalidate();
            Problem::Read { what: "graphics region", handle: plane.handle, error }
        };
        let Some(source) = region.source(&*device, &*clock, *budget) else { return Ok(View::Off) };
        let is_slow = source.is_slow();
        let damage = drawing
            .update(&plane.geometry, conversion, &source, closeness)
            .map_err(|error| unreadable(region, error))?;
        let picture = drawing.picture();
        if moved {
            self.note_region(&plane, is_slow);
        }
        self.note_blank(&plane.geometry, &picture, !damage.is_empty());
        self.note_mode(&plane);
        Ok(View::Picture(Drawn { plane, lease: None, picture, damage }))
    }

    /// Traces a region that has moved, and warns if it cannot be mapped.
    fn note_region(&mut self, plane: &Plane, is_slow: bool) {
        let (name, handle) = (self.device.name(), plane.handle);
        self.notes.trace(&format!("{name}: region {handle}: {}", plane.geometry));
        if is_slow {
            let slow = format!(
                "graphics region {} cannot be mapped: it is read piece by piece, slowly",
                plane.handle
            );
            self.notes.say(Severity::Warning, &slow);
        }
    }

    /// Warns of a picture that is nothing but zeros for too long. `changed`: since the last poll.
    fn note_blank(&mut self, geometry: &Geometry, picture: &SharedPicture, changed: bool) {
        let Some(blanks) = &mut self.blanks else { return };
        let now = self.clock.now();
        if picture.with(|picture| blanks.note(geometry, picture, changed, now)) {
            let Geometry { width, height, .. } = geometry;
            let blank = format!(
                "nothing but zeros since {width}x{height} was set: NVIDIA's R535 does not show modes whose picture is no whole \
                 number of pages; unless the guest is black, set another, such as 1920x1080"
            );
            self.notes.say(Severity::Warning, &blank);
        }
    }

    /// Returns the region's memory itself, if that is better than a copy.
    fn poll_memory(&mut self, plane: &Plane, conversion: Conversion) -> Option<View> {
        let Planes::Region(region) = &self.planes else { return None };
        let geometry = plane.geometry;
        if let Some(direct) = self.direct.as_mut().filter(|d| d.shows(region.memory())) {
            // If it cannot be read, the copy will report that.
            let tell = direct.poll().ok()?;
            if direct.is_calm() {
                self.hesitation = direct.hesitation(self.hesitation);
                return None;
            }
            let changed = tell || self.exact || self.redraw;
            if changed {
                direct.tell();
            }
            let memory = Arc::clone(direct.picture().0);
            return Some(View::Memory { plane: *plane, memory, changed });
        }
        let drawing = self.drawing.as_ref()?;
        let worth_it = self.config.direct
            && conversion.is_identity()
            && drawing.has_size_of(&geometry)
            && drawing.is_useless(self.hesitation);
        let memory =
            region.memory().filter(|memory| worth_it && Direct::is_possible(memory, &geometry))?;
        let direct = Direct::new(Arc::clone(memory), geometry).ok()?;
        let memory = Arc::clone(memory);
        self.direct = Some(direct);
        Some(View::Memory { plane: *plane, memory, changed: true })
    }

    /// Returns how a surface is compared with what it shows.
    fn closeness(&mut self) -> damage::Comparison {
        let now = self.clock.now();
        let since = now.saturating_sub(std::mem::replace(&mut self.compared, now));
        if self.redraw {
            damage::Comparison::Copy
        } else if self.exact || !self.config.sample {
            damage::Comparison::Compare
        } else {
            damage::Comparison::Sampled(since)
        }
    }

    /// Makes sure that there is a picture of the right size to draw on.
    fn prepare_surface(&mut self, plane: &Plane, conversion: Conversion) -> Result<(), Problem> {
        let geometry = &plane.geometry;
        let (width, height) = (geometry.width, geometry.height);
        let is_shown = matches!(self.shown, Shown::Surface(w, h, _) if (w, h) == (width, height));
        if !is_shown || !self.drawing.as_ref().is_some_and(|d| d.has_size_of(geometry)) {
            // Free the old picture first.
            self.drawing = None;
            let drawing = Drawing::new(geometry, conversion);
            self.drawing = Some(drawing.map_err(|OutOfMemory(bytes)| Problem::NoSurface {
                width,
                height,
                bytes,
            })?);
        }
        Ok(())
    }

    /// Returns what to show and log after a failure.
    fn fail(&mut self, problem: &Problem) -> View {
        let health = &mut self.health;
        health.failures += 1;
        let lasting = !problem.is_passing() || health.failures > PATIENCE;
        let failure = problem.failure();
        if matches!(failure, Some(Failure::Gone | Failure::Silent)) || problem.is_refusal() {
            let now = self.clock.now();
            health.backoff_until = now + BACKOFF.max(self.budget.spent(now) * REST_SHARE);
        }
        let mut remarks = Vec::new();
        let topic = problem.topic();
        if health.failures == 1 || health.error.0 != topic {
            health.error = (topic, problem.to_string());
        }
        if lasting || problem.is_worth_saying() {
            let (topic, text) = &health.error;
            let topic = if problem.concerns_all_buffers() { topic } else { text };
            remarks.extend(Self::complaint(topic.clone(), problem, Severity::Error));
        } else {
            remarks.push(Remark::Count(problem.category()));
        }
        let unread = self.unread.take();
        let mut message = None;
        let mut frozen = None;
        if lasting || failure == Some(Failure::Silent) {
            self.mode = None;
            message = Some(problem.headline());
        } else if self.shown == Shown::Memory {
            // The memory on screen may hold anything by now.
            frozen = self.freeze().map(|drawn| (drawn, problem.headline()));
            if frozen.is_none() {
                message = Some(problem.headline());
            }
        }
        if failure == Some(Failure::Gone) {
            self.invalidate_planes();
        }
        View::Error { remarks, unread, message, frozen }
    }

    /// Copies the memory that is shown.
    fn freeze(&mut self) -> Option<Drawn> {
        let direct = self.direct.take()?;
        let (memory, geometry) = direct.picture();
        let conversion = Conversion::to_xrgb8888(geometry.format)?;
        let mut drawing = Drawing::new(&geometry, conversion).ok()?;
        let comparison = damage::Comparison::Copy;
        let damage =
            drawing.update(&geometry, conversion, &**memory as &dyn Source, comparison).ok()?;
        let plane = Plane { geometry, handle: 0, position: (0, 0), hotspot: None };
        let picture = drawing.picture();
        self.drawing = Some(drawing);
        Some(Drawn { plane, lease: None, picture, damage })
    }

    /// Notices mode sets.
    fn note_mode(&mut self, plane: &Plane) {
        let mode = Some((plane.geometry.width, plane.geometry.height));
        if self.mode != mode {
            self.cursor.forget();
        }
        self.mode = mode;
    }

    /// Checks whether the guest flipped, if it is time to.
    pub(crate) fn check_flip(&mut self) -> FlipCheck {
        let now = self.clock.now();
        let backs_off = self.backs_off(now);
        let Pace::Flips(pacer) = &mut self.pace else { return FlipCheck::Nothing };
        if backs_off || pacer.next_poll(now).is_none_or(|at| at > now) {
            return FlipCheck::Nothing;
        }
        self.counters.polls += 1;
        self.budget = Budget::new(now);
        match dmabuf::check_flip(&self.device, &mut self.counters) {
            Ok(shows) => {
                let now = self.clock.now();
                if !pacer.poll(now, shows.as_ref()) {
                    return FlipCheck::Nothing;
                }
                self.found = shows.map(|info| (info, now));
                self.expect_change();
                FlipCheck::Changed
            }
            // A retry would take as long.
            Err(error) if matches!(Failure::of(&error), Failure::Gone | Failure::Silent) => {
                let view = self.fail(&Problem::Query { kind: PlaneKind::Primary, error });
                FlipCheck::Failed(Box::new(self.report(view, CursorView::Unchanged)))
            }
            // The next poll will report it.
            Err(_) => {
                pacer.lose(self.clock.now());
                FlipCheck::Nothing
            }
        }
    }

    /// The device signalled a change. Returns whether somebody wants to see it.
    pub(crate) fn on_event(&mut self) -> bool {
        let now = self.clock.now();
        let Pace::Events(events) = &mut self.pace else { return false };
        let wanted = events.on_event(now);
        if wanted {
            self.expect_change();
        }
        wanted
    }

    /// Returns when to poll besides the front ends' refreshes, or to listen to the device again.
    pub(crate) fn next_poll(&self, now: Duration) -> Option<Duration> {
        match &self.pace {
            _ if self.backs_off(now) => None,
            Pace::FrontEnds => None,
            Pace::Flips(pacer) => pacer.next_poll(now),
            Pace::Events(events) => {
                events.next(now).filter(|after| !after.is_zero()).map(|after| now + after)
            }
        }
    }

    /// Returns whether to listen to the device, if it signals changes.
    pub(crate) fn listens(&self, now: Duration) -> Option<bool> {
        match &self.pace {
            Pace::Events(events) => {
                Some(!self.backs_off(now) && events.next(now).is_some_and(|after| after.is_zero()))
            }
            _ => None,
        }
    }
}
