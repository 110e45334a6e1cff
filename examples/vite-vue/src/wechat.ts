import { config } from "flask-wxjsapi-client";
import { ref } from "vue";

/** What WeChat says of the page that is shown. */
export const verdict = ref("…");

export async function configure(title: string) {
  verdict.value = "…";
  try {
    const share = { title, desc: "In Vue", imgUrl: "/share.png" };
    await config({ endpoint: "/wxjsapi", share });
    verdict.value = "config:ok";
  } catch (error) {
    verdict.value = (error as Error).message;
  }
}
