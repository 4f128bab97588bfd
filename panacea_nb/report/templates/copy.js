// A click on a button copies the text beside it; where the browser does not allow that, the text is selected instead.
for (const button of document.querySelectorAll("button[data-copy]")) {
  const source = document.getElementById(button.dataset.copy), word = button.textContent;
  button.hidden = false;
  const select = () => {
    const range = document.createRange();
    range.selectNodeContents(source);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  };
  const say = (text) => {
    button.textContent = text;
    setTimeout(() => { button.textContent = word; }, 2500);
  };
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent.trim());
      say("copied");
    } catch {
      select();
      let done = false;
      try { done = document.execCommand("copy"); } catch { done = false; }
      say(done ? "copied" : "selected: press Ctrl+C");
    }
  });
}
