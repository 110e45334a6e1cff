"use strict";

const verdict = Vue.ref("…");

const router = VueRouter.createRouter({
  history: VueRouter.createWebHistory("/vue/"),
  routes: [
    { path: "/", component: { template: `<h1 id="title">Start</h1>` } },
    { path: "/item/:id", component: { template: `<h1 id="title">Item {{ $route.params.id }}</h1>` } },
  ],
});

// The one line a Vue app needs is the call in here: the address has changed by now.
router.afterEach((to) => {
  const title = to.params.id ? `Item ${to.params.id}` : "Start";
  document.title = title;
  verdict.value = "…";
  wxjsapi.config({ share: { title, desc: "In Vue", imgUrl: "/static/share.png" } }).then(
    () => (verdict.value = "config:ok"),
    (error) => (verdict.value = error.message),
  );
});

Vue.createApp({ setup: () => ({ verdict }) }).use(router).mount("#app");
