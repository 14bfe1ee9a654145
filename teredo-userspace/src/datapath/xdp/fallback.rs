//! The supervision of native mode, and the change to generic mode when frames are lost.

use std::{future::pending, thread};

use tokio::sync::oneshot;
use tracing::warn;

use super::{
    AttachedProgram, Error, Interface, Mode,
    delivery::{Delivery, Loss, Obstacle, Totals},
};

/// The outcome of a look at the drivers.
#[derive(Debug)]
pub(super) struct Look {
    delivery: Delivery,
    /// The program's frames when the look began.
    before: Totals,
    losses: Vec<Loss>,
    outcome: Result<(), Obstacle>,
}

impl Look {
    fn at(mut delivery: Delivery, interfaces: &[Interface], before: Totals) -> Self {
        Self {
            losses: delivery.look_at_counters(interfaces),
            outcome: delivery.check(interfaces),
            delivery,
            before,
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

    /// Begins to look whether the frames that the program sends in native mode arrive, unless such a look takes place
    /// already: drivers may take seconds to answer. To be called once a second.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn begin_look(&mut self) -> Result<(), Error> {
        if self.look.is_some() || !self.is_native() {
            return Ok(());
        }
        let totals = self.program.totals()?;
        let delivery = self.delivery.take();
        if let Some(delivery) = delivery.or_else(|| Delivery::open().ok()) {
            let interfaces = self.interfaces.clone();
            let (report, look) = oneshot::channel();
            let thread = thread::Builder::new().name("drivers".to_owned());
            let spawned = thread.spawn(move || {
                // The program may have gone meanwhile.
                let _ = report.send(Look::at(delivery, &interfaces, totals));
            });
            // Without resources for a thread, the next second may have them.
            self.look = spawned.is_ok().then_some(look);
        }
        Ok(())
    }

    /// Waits until a look is over, for [`Self::conclude`]; forever if none takes place. Cancelling loses nothing.
    pub async fn look_over(&mut self) {
        let Some(look) = &mut self.look else {
            return pending().await;
        };
        self.seen = look.await.ok();
        self.look = None;
    }

    /// Attaches the program in generic mode if the last look has found that frames do not arrive in native mode, and
    /// returns the obstacle then.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn conclude(&mut self) -> Result<Option<Obstacle>, Error> {
        let Some(mut look) = self.seen.take().filter(|_| self.is_native()) else {
            return Ok(None);
        };
        let until = self.program.totals()?;
        let judged = look.delivery.judge(&look.losses, look.before, until);
        self.delivery = Some(look.delivery);
        for loss in look.losses {
            let mut attached = self.attached.iter_mut();
            if let Some(status) = attached.find(|one| one.index == loss.interface) {
                status.dropped += loss.frames;
            }
        }
        let Err(obstacle) = look.outcome.and(judged) else {
            return Ok(None);
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

    fn is_native(&self) -> bool {
        let mut attached = self.attached.iter();
        attached.any(|status| status.mode == Some(Mode::Native))
    }
}
