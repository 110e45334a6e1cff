"use strict";

const accounts = Vue.shallowRef([]);
const chosen = Vue.shallowRef(null);
const verdict = Vue.ref("");

// The page becomes another account's: its address first, which is what WeChat compares.
async function show(account) {
  chosen.value = account;
  verdict.value = "…";
  document.title = account.name;
  history.replaceState({}, "", `/switch/?account=${account.appId}`);
  const share = { title: account.name, link: `/${account.appId}/`, imgUrl: "/static/share.png" };
  const said = await wxjsapi.config({ appId: account.appId, share }).then(
    () => "config:ok",
    (error) => error.message,
  );
  if (chosen.value === account) verdict.value = said; // else somebody has gone on meanwhile
}

async function start() {
  accounts.value = await (await fetch("/accounts")).json();
  const named = new URLSearchParams(location.search).get("account");
  const first = accounts.value.find(({ appId }) => appId === named) || accounts.value[0];
  if (first) show(first);
}

Vue.createApp({ setup: () => ({ accounts, chosen, verdict, show }) }).mount("#app");
start();
