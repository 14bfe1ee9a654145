// Keeps the page up to date, and asks the daemon to explain.
//
// The daemon makes the whole page. This script asks for it again and takes over what has changed, so that
// focus, opened parts and selected text stay.

const PERIOD = 2_000;
const PATIENCE = 5_000;

const freshness = document.getElementById("freshness");
let answered = performance.now();

/** Makes a node like another one, which is of a page that the daemon has just made. */
function take(node, fresh) {
  if (node.nodeType !== fresh.nodeType || node.nodeName !== fresh.nodeName) {
    node.replaceWith(document.importNode(fresh, true));
    return;
  }
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.data !== fresh.data) node.data = fresh.data;
    return;
  }
  // Parts of this script, and fields that somebody types in.
  if ("own" in node.dataset || node.isEqualNode(fresh)) return;
  if (node.nodeName === "INPUT" || node.nodeName === "SELECT") return;
  for (const { name, value } of fresh.attributes) {
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  for (const { name } of [...node.attributes]) {
    if (name !== "open" && !fresh.hasAttribute(name)) node.removeAttribute(name);
  }
  const [before, after] = [[...node.childNodes], [...fresh.childNodes]];
  after.forEach((child, index) => {
    if (index < before.length) take(before[index], child);
    else node.append(document.importNode(child, true));
  });
  before.slice(after.length).forEach((child) => child.remove());
}

async function refresh() {
  const response = await fetch(location.pathname + location.search, {
    cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE),
  });
  if (!response.ok) throw new Error(`the daemon answers ${response.status}`);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  document.title = fresh.title;
  document.body.className = fresh.body.className;
  take(document.querySelector("header"), fresh.querySelector("header"));
  take(document.querySelector("main"), fresh.querySelector("main"));
  answered = performance.now();
}

function showFreshness() {
  const seconds = Math.round((performance.now() - answered) / 1_000);
  const isStale = seconds > (PERIOD + PATIENCE) / 1_000;
  document.body.classList.toggle("stale", isStale);
  const text = isStale ? `No answer for ${seconds} s: what you see is old.` : "Live";
  if (freshness.textContent !== text) freshness.textContent = text;
}

async function follow() {
  for (;;) {
    if (!document.hidden) {
      await refresh().catch(() => {});
      showFreshness();
    }
    await new Promise((resume) => setTimeout(resume, PERIOD));
  }
}

/** The findings of an explanation, in words. */
const FINDINGS = { fine: "✓ ok", note: "note", fault: "✕ fault" };

/** Returns an element with a class and a text. */
function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function explanation({ cause, steps }) {
  const list = document.createElement("ol");
  for (const { stage, finding, text } of steps) {
    const item = element("li", finding, "");
    const heading = element("p", "what", "");
    const badge = element("span", "badge", FINDINGS[finding]);
    heading.append(badge, " ", element("strong", "", stage.replace("-", " ")));
    item.append(heading, element("p", "which", text));
    list.append(item);
  }
  return [element("p", "verdict", cause), list];
}

async function explain(subject) {
  const digits = subject.replace(/\s+/g, "");
  // A packet is at least as long as a header of IPv4.
  const isPacket = /^(?:[0-9a-f]{2}){20,}$/i.test(digits);
  const response = await fetch("/v1/explain", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(isPacket ? { packet: digits } : { subject }),
    signal: AbortSignal.timeout(PATIENCE),
  });
  if (response.status === 404) {
    document.getElementById("explain").hidden = true;
    return [];
  }
  if (!response.ok) {
    const isProblem = response.headers.get("Content-Type")?.includes("json");
    const reason = isProblem ? (await response.json()).detail : await response.text();
    return [element("p", "refusal", reason || `The daemon answers ${response.status}.`)];
  }
  return explanation(await response.json());
}

document.getElementById("question").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  const box = document.getElementById("explanation");
  button.disabled = true;
  const answer = await explain(new FormData(event.target).get("subject").trim()).catch((error) => [
    element("p", "refusal", `The daemon gives no answer: ${error.message}.`),
  ]);
  box.replaceChildren(...answer);
  button.disabled = false;
});

document.getElementById("explain").hidden = false;
showFreshness();
setInterval(showFreshness, 1_000);
follow();
