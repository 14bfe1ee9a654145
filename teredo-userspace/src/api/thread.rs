//! The API in a thread of its own, so that its readers do not delay packets.

use std::{io, mem, thread};

use tokio::{runtime::Builder, sync::oneshot};

use super::{Handle, Listeners, listener::SocketFile, serve};
use crate::config::secrets::Token;

/// The running API. [`ApiThread::stop`] ends it.
#[derive(Debug)]
pub struct ApiThread {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<io::Result<()>>,
    files: Vec<SocketFile>,
}

impl ApiThread {
    /// Starts to answer requests; on addresses that are not loopback, of those who have the token.
    ///
    /// # Errors
    ///
    /// When there are no resources for a thread.
    pub fn start(
        mut listeners: Listeners,
        handle: Handle,
        token: Option<Token>,
    ) -> io::Result<Self> {
        let files = listeners.take_files();
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let serve = move || {
            let result = runtime.block_on(async {
                tokio::select! {
                    result = serve(listeners, handle, token) => result,
                    _ = stopped => Ok(()),
                }
            });
            // A slow client must not delay the end.
            runtime.shutdown_background();
            result
        };
        let thread = thread::Builder::new().name("api".to_owned()).spawn(serve)?;
        Ok(Self {
            stop,
            thread,
            files,
        })
    }

    /// Waits for the end of the API, whose gate is closed, and leaves its sockets to another process.
    pub fn leave(self) {
        // They are that process's now.
        mem::forget(self.files);
        // It fails only after a panic, which has been reported.
        let _ = self.thread.join();
    }

    /// Ends the API. The files of its sockets are removed then.
    ///
    /// # Errors
    ///
    /// When the API has ended before, because a listening socket could not be used.
    pub fn stop(self) -> io::Result<()> {
        drop(self.stop);
        drop(self.files);
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("its thread has panicked")))
    }
}
