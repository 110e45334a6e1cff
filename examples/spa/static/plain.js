"use strict";

const $ = (id) => document.getElementById(id);

// What changes from one address to the next: the page, and the card that it is shared with.
function show() {
  const item = location.pathname.split("/plain/item/")[1];
  const title = item ? `Item ${decodeURIComponent(item)}` : "Start";
  document.title = $("title").textContent = title;
  $("verdict").textContent = "…";
  wxjsapi.config({ share: { title, desc: "A single-page app", imgUrl: "/static/share.png" } }).then(
    () => ($("verdict").textContent = "config:ok"),
    (error) => ($("verdict").textContent = error.message),
  );
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("nav a[href^='/plain/']");
  if (!link) return;
  event.preventDefault();
  history.pushState({}, "", link.href);
  show();
});
window.addEventListener("popstate", show);
show();
