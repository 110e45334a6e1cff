import { createRouter, createWebHistory } from "vue-router";

import Page from "./Page.vue";
import { configure } from "./wechat";

declare module "vue-router" {
  interface RouteMeta {
    title: string;
  }
}

export const router = createRouter({
  history: createWebHistory(),
  routes: [
    { path: "/", component: Page, meta: { title: "Start" } },
    { path: "/one", component: Page, meta: { title: "Item 1" } },
    { path: "/:item", component: Page, meta: { title: "Item 2/3" } },
  ],
});

// The address has changed by now.
router.afterEach((to, _from, failure) => {
  if (failure) return;
  document.title = to.meta.title;
  void configure(to.meta.title);
});
