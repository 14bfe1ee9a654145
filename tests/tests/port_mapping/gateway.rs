//! A gateway that speaks UPnP: SSDP, two descriptions and the three requests of RFC 6081.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use teredo_lab::{Namespace, process::wait_for_free_udp_port};

/// The gateway's address on its link.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// An external address of the gateway.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(20, 9, 9, 9);

const SEARCHES: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 255, 255, 250), 1900);
/// Longest time until the gateway before has gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Interval at which the threads check whether they are to end.
const PAUSE: Duration = Duration::from_millis(20);

const DEVICE: &str = r#"<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType>
<deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType>
<serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
<serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>
<controlURL>/control</controlURL><eventSubURL>/event</eventSubURL><SCPDURL>/service.xml</SCPDURL>
</service></serviceList>
</device></deviceList>
</device></deviceList>
</device></root>"#;

/// The gateway's actions with the arguments of each.
const ACTIONS: &[(&str, &[&str])] = &[
    (
        "AddPortMapping",
        &[
            "NewRemoteHost",
            "NewExternalPort",
            "NewProtocol",
            "NewInternalPort",
            "NewInternalClient",
            "NewEnabled",
            "NewPortMappingDescription",
            "NewLeaseDuration",
        ],
    ),
    (
        "DeletePortMapping",
        &["NewRemoteHost", "NewExternalPort", "NewProtocol"],
    ),
    ("GetExternalIPAddress", &[]),
];

/// A received request: the action, and its arguments in the order of [`ACTIONS`].
pub type Request = (String, Vec<String>);

/// A running gateway.
pub struct Gateway {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    is_over: AtomicBool,
    /// The external address that it reports.
    outside: Option<Ipv4Addr>,
    requests: Mutex<Vec<Request>>,
    /// The forwarded ports.
    ports: Mutex<BTreeSet<String>>,
}

impl Gateway {
    /// Opens the gateway's ports in the namespace, which has its address. `outside` is the external
    /// address that it reports.
    pub fn start(namespace: &Namespace, outside: Option<Ipv4Addr>) -> Result<Self> {
        let (searches, requests) = namespace.run(|| -> Result<_> {
            wait_for_free_udp_port(SEARCHES.1, PATIENCE)?;
            let searches = UdpSocket::bind(("0.0.0.0", SEARCHES.1))?;
            searches.join_multicast_v4(&SEARCHES.0, &ADDRESS)?;
            searches.set_read_timeout(Some(PAUSE))?;
            let requests = TcpListener::bind((ADDRESS, 0))?;
            requests.set_nonblocking(true)?;
            Ok((searches, requests))
        })??;
        let location = format!("http://{}/device.xml", requests.local_addr()?);
        let state = Arc::new(State {
            outside,
            ..State::default()
        });
        let (searched, asked) = (state.clone(), state.clone());
        let threads = vec![
            thread::spawn(move || searched.answer_searches(&searches, &location)),
            thread::spawn(move || asked.answer_requests(&requests)),
        ];
        Ok(Self { state, threads })
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().expect("no thread fails").clone()
    }

    /// The actions of the requests so far.
    pub fn actions(&self) -> Vec<String> {
        let requests = self.requests().into_iter();
        requests.map(|(action, _)| action).collect()
    }

    /// Ports that are forwarded now.
    pub fn ports(&self) -> Vec<String> {
        let ports = self.state.ports.lock().expect("no thread fails");
        ports.iter().cloned().collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn answer_searches(&self, socket: &UdpSocket, location: &str) {
        let mut buffer = [0; 2048];
        while !self.is_over() {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let search = String::from_utf8_lossy(&buffer[..length]);
            let target = search.lines().find_map(|line| line.strip_prefix("ST:"));
            if let Some(target) = target.filter(|_| search.starts_with("M-SEARCH")) {
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=60\r\nEXT:\r\nLOCATION: {location}\r\n\
                     SERVER: lab UPnP/1.1\r\nST: {}\r\nUSN: uuid:lab\r\n\r\n",
                    target.trim()
                );
                let _ = socket.send_to(answer.as_bytes(), from);
            }
        }
    }

    fn answer_requests(&self, listener: &TcpListener) {
        while !self.is_over() {
            match listener.accept() {
                Ok((stream, _)) => drop(self.answer(stream)),
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    fn answer(&self, stream: TcpStream) -> Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut reader = BufReader::new(stream);
        let (mut first, mut length) = (String::new(), 0);
        reader.read_line(&mut first)?;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let path = first.split(' ').nth(1).context("no path")?;
        let answer = match path {
            "/device.xml" => Ok(DEVICE.to_owned()),
            "/service.xml" => Ok(description()),
            _ => self.perform(&String::from_utf8(body)?),
        };
        let (status, text) = match answer {
            Ok(text) => ("200 OK", text),
            Err(code) => ("500 Internal Server Error", fault(code)),
        };
        write!(
            reader.get_mut(),
            "HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\nConnection: \
             close\r\n\r\n{text}",
            text.len()
        )?;
        Ok(())
    }

    /// Performs a request: returns the answer, or a UPnP error code.
    fn perform(&self, body: &str) -> Result<String, u16> {
        let called = |(action, _): &&(&str, _)| body.contains(&format!(":{action} "));
        let &(action, arguments) = ACTIONS.iter().find(called).ok_or(401_u16)?;
        let arguments: Vec<_> = arguments
            .iter()
            .map(|name| argument(body, name).unwrap_or_else(|| "missing".to_owned()))
            .collect();
        let mut requests = self.requests.lock().expect("no thread fails");
        requests.push((action.to_owned(), arguments.clone()));
        let mut ports = self.ports.lock().expect("no thread fails");
        let content = match action {
            "AddPortMapping" => {
                ports.insert(arguments[1].clone());
                String::new()
            }
            "DeletePortMapping" if ports.remove(&arguments[1]) => String::new(),
            // No such entry in the array.
            "DeletePortMapping" => return Err(714),
            _ => {
                let outside = self.outside.ok_or(501_u16)?;
                format!("<NewExternalIPAddress>{outside}</NewExternalIPAddress>")
            }
        };
        Ok(envelope(&format!(
            "<u:{action}Response xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\">{content}\
             </u:{action}Response>"
        )))
    }
}

fn argument(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0.to_owned())
}

fn description() -> String {
    let actions: String = ACTIONS
        .iter()
        .map(|(action, arguments)| {
            let arguments: String = arguments
                .iter()
                .map(|name| {
                    format!("<argument><name>{name}</name><direction>in</direction></argument>")
                })
                .collect();
            format!(
                "<action><name>{action}</name><argumentList>{arguments}</argumentList></action>"
            )
        })
        .collect();
    format!(
        "<?xml version=\"1.0\"?><scpd xmlns=\"urn:schemas-upnp-org:service-1-0\"><actionList>{actions}\
         </actionList></scpd>"
    )
}

fn fault(code: u16) -> String {
    envelope(&format!(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>\
         <UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{code}</errorCode>\
         <errorDescription>no</errorDescription></UPnPError></detail></s:Fault>"
    ))
}

fn envelope(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>{body}</s:Body>\
         </s:Envelope>"
    )
}
