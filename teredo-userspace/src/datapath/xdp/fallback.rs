//! The supervision of native mode, and the change to generic mode when frames are lost.

use std::thread;

use tracing::warn;

use super::{
    AttachedProgram, Error, Interface, Mode,
    delivery::{Delivery, Obstacle, Totals},
};

/// The outcome of a look at the drivers.
#[derive(Debug)]
pub(super) struct Look {
    delivery: Delivery,
    /// Frames that were dropped since the look before, by index of the interface.
    dropped: Vec<(u32, u64)>,
    outcome: Result<(), Obstacle>,
}

impl Look {
    fn at(mut delivery: Delivery, interfaces: &[Interface], totals: Totals) -> Self {
        let mut dropped = Vec::new();
        let counted = delivery.look_at_counters(interfaces, totals, |index, frames| {
            dropped.push((index, frames));
        });
        let outcome = delivery.check(interfaces).and(counted);
        Self {
            delivery,
            dropped,
            outcome,
        }
    }
}

impl AttachedProgram {
    /// Checks that frames arrive once the program is attached in this mode.
    pub(super) fn begin_delivery(&mut self, mode: Mode) -> Result<(), Error> {
        let totals = self.program.totals()?;
        if mode == Mode::Native
            && let Some(delivery) = &mut self.delivery
        {
            delivery.check(&self.interfaces)?;
            delivery.begin(&self.interfaces, totals);
        }
        Ok(())
    }

    /// Looks whether the frames that the program sends in native mode arrive, and attaches it in generic
    /// mode if they do not. Returns the obstacle to native mode then. To be called once a second: what a look
    /// finds is known when it is called again.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn examine_drops(&mut self) -> Result<Option<Obstacle>, Error> {
        if !self.is_native() {
            return Ok(None);
        }
        let result = match self.look.take() {
            Some(look) if !look.is_finished() => {
                self.look = Some(look);
                return Ok(None);
            }
            Some(look) => look.join().ok(),
            None => None,
        };
        let Some(Look {
            delivery,
            dropped,
            outcome,
        }) = result
        else {
            return self.begin_look().map(|()| None);
        };
        self.delivery = Some(delivery);
        for (index, dropped) in dropped {
            for status in self.attached.iter_mut().filter(|one| one.index == index) {
                status.dropped += dropped;
            }
        }
        let Err(obstacle) = outcome else {
            return self.begin_look().map(|()| None);
        };
        let dropped: Vec<_> = self.attached.iter().map(|status| status.dropped).collect();
        warn!("the fast path leaves native mode: {obstacle}");
        self.detach_all();
        self.attach_generic(&obstacle.to_string())?;
        for (status, dropped) in self.attached.iter_mut().zip(dropped) {
            status.dropped = dropped;
        }
        Ok(Some(obstacle))
    }

    /// Begins to ask the drivers, which may take seconds.
    fn begin_look(&mut self) -> Result<(), Error> {
        let totals = self.program.totals()?;
        let delivery = self.delivery.take();
        if let Some(delivery) = delivery.or_else(|| Delivery::open().ok()) {
            let interfaces = self.interfaces.clone();
            let look = move || Look::at(delivery, &interfaces, totals);
            let thread = thread::Builder::new().name("drivers".to_owned());
            // Without resources for a thread, the next second may have them.
            self.look = thread.spawn(look).ok();
        }
        Ok(())
    }

    fn is_native(&self) -> bool {
        let mut attached = self.attached.iter();
        attached.any(|status| status.mode == Some(Mode::Native))
    }
}
