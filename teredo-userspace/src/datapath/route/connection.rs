//! The thread of a connection to the kernel's routing tables.

use std::{future::Future, io, sync::mpsc, thread};

use rtnetlink::Handle;
use tokio::{
    runtime::{self, Builder},
    sync::oneshot,
    task::JoinHandle,
};

/// A thread, which ends with this.
#[derive(Debug)]
pub struct Connection {
    runtime: runtime::Handle,
    /// The thread ends when this is closed.
    _end: oneshot::Sender<()>,
}

impl Connection {
    /// Opens a connection in a new thread, and returns it with the handle for questions.
    ///
    /// # Errors
    ///
    /// When the kernel provides no netlink socket, or there are no resources for a thread.
    pub fn open() -> io::Result<(Self, Handle)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let (opened, opening) = mpsc::channel();
        let answer = move || {
            runtime.block_on(async {
                let connection = match rtnetlink::new_connection() {
                    Ok((connection, questions, _)) => {
                        // The other end waits for it.
                        let _ = opened.send(Ok(questions));
                        connection
                    }
                    Err(error) => {
                        let _ = opened.send(Err(error));
                        return;
                    }
                };
                tokio::select! {
                    () = connection => {}
                    _ = ended => {}
                }
            });
        };
        thread::Builder::new()
            .name("routes".to_owned())
            .spawn(answer)?;
        let questions = opening.recv().map_err(io::Error::other)??;
        let connection = Self {
            runtime: handle,
            _end: end,
        };
        Ok((connection, questions))
    }

    /// Runs a task in the thread.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(task)
    }
}
