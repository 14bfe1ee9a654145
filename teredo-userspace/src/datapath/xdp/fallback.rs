//! The supervision of native mode, and the change to generic mode when frames are lost.

use tracing::warn;

use super::{AttachedProgram, Error, Mode, delivery::Obstacle};

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
    /// mode if they do not. Returns the obstacle to native mode then. To be called once a second.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn examine_drops(&mut self) -> Result<Option<Obstacle>, Error> {
        if !self.is_native() {
            return Ok(None);
        }
        let totals = self.program.totals()?;
        let Some(delivery) = &mut self.delivery else {
            return Ok(None);
        };
        let attached = &mut self.attached;
        let counted = delivery.look_at_counters(&self.interfaces, totals, |index, dropped| {
            for status in attached.iter_mut().filter(|status| status.index == index) {
                status.dropped += dropped;
            }
        });
        let Err(obstacle) = delivery.check(&self.interfaces).and(counted) else {
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
