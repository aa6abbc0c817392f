"use strict";
/* Keeps the page of this moment fresh: it fetches the page anew, and puts its contents in place of the old ones. */
{
  const ANSWER_SECONDS = 30;
  let shown = document.getElementById("morango-now");

  const later = () => setTimeout(refresh, 1000 * (Number(shown.dataset.seconds) || 5));

  async function fetched() {
    const end = new AbortController();
    const timer = setTimeout(() => end.abort(), 1000 * ANSWER_SECONDS);
    try {
      const answer = await fetch(shown.dataset.url, { credentials: "same-origin", signal: end.signal });
      if (!answer.ok) throw new Error(answer.statusText);
      return new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("morango-now");
    } finally {
      clearTimeout(timer);
    }
  }

  async function refresh() {
    if (document.hidden) {
      later();
      return;
    }
    try {
      const fresh = await fetched();
      if (fresh === null) {
        window.location.reload(); // the session is over: this leads to the login
        return;
      }
      const focused = shown.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      shown.replaceWith(fresh);
      shown = fresh;
      for (const link of focused ? shown.querySelectorAll("a") : []) {
        if (link.getAttribute("href") === focused) link.focus();
      }
    } catch (error) {
      const late = shown.querySelector(".morango-late");
      if (late) late.textContent = "Not refreshed since then: the server doesn't answer.";
    }
    later();
  }

  if (shown) {
    if (Number(shown.dataset.seconds)) later();
    else refresh();
  }
}
