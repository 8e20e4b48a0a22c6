// Search in a page that was opened as a file: browsers start no worker from file://, so the search's script runs in a
// hidden frame of the page instead. mkdocs-material's offline plugin would fetch such a script from the network.
if (location.protocol === "file:") {
  // The search's script looks for this name in its parent, to know where it is.
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.ready = new Promise((resolve) => frame.addEventListener("load", () => resolve(frame.contentWindow)));
      frame.srcdoc = `<script>postMessage = (data) => frameElement.answer(data)<\/script><script src="${new URL(url, location)}"><\/script>`;
      frame.answer = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      document.body.append(frame);
    }

    postMessage(data) {
      this.ready.then((there) => there.dispatchEvent(new there.MessageEvent("message", { data })));
    }
  };
  window.Worker = window.IFrameWorker;
}
