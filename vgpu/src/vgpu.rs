//! What the threads share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::device::Device;

/// The device, and the scene that may be running on it.
#[derive(Debug)]
pub struct Vgpu {
    device: Mutex<Device>,
    /// The `stop` flag of the scene that runs.
    scene: Mutex<Option<Arc<AtomicBool>>>,
    scene_ended: Condvar,
    /// Files to remove at the end.
    sockets: Vec<PathBuf>,
}

impl Vgpu {
    pub fn new(device: Device, sockets: Vec<PathBuf>) -> Self {
        Self {
            device: Mutex::new(device),
            scene: Mutex::new(None),
            scene_ended: Condvar::new(),
            sockets,
        }
    }

    /// The device. A thread that panicked over it leaves it as it is: a test's server rather goes
    /// on.
    pub fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a scene in a thread, after the one that runs now has ended. The scene returns when the
    /// flag is set.
    pub fn start_scene(
        self: &Arc<Self>,
        scene: impl FnOnce(&Self, &AtomicBool) -> Result<(), String> + Send + 'static,
    ) {
        self.stop_scene();
        let stop = Arc::new(AtomicBool::new(false));
        *self.scene() = Some(stop.clone());
        let vgpu = self.clone();
        std::thread::spawn(move || {
            // Nothing depends on it: without the right, the scene beats a little less precisely.
            let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
            let ended = Ended(&vgpu);
            if let Err(e) = scene(&vgpu, &stop) {
                eprintln!("vgpu: scene ended: {e}");
            }
            drop(ended);
        });
    }

    /// Ends the scene that runs, if any.
    pub fn stop_scene(&self) {
        let scene = self.scene();
        if let Some(stop) = &*scene {
            stop.store(true, Ordering::Relaxed);
        }
        drop(self.scene_ended.wait_while(scene, |scene| scene.is_some()));
    }

    /// Returns when no scene runs.
    pub fn wait_scene(&self) {
        drop(self.scene_ended.wait_while(self.scene(), |scene| scene.is_some()));
    }

    pub fn scene_runs(&self) -> bool {
        self.scene().is_some()
    }

    /// Removes the sockets and ends the process.
    pub fn exit(&self) -> ! {
        for socket in &self.sockets {
            // It may be gone already.
            let _ = std::fs::remove_file(socket);
        }
        std::process::exit(0)
    }

    fn scene(&self) -> MutexGuard<'_, Option<Arc<AtomicBool>>> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that the scene has ended, also when it panicked.
struct Ended<'a>(&'a Vgpu);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.scene() = None;
        self.0.scene_ended.notify_all();
    }
}
