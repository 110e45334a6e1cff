/** The card that a share makes (自定义分享). */
export interface Share {
  title: string;
  /** Friends see it, Moments do not. */
  desc?: string;
  /**
   * On one of the account's JS-safe domains; by default the page's own address, without an OAuth
   * code and what WeChat adds.
   */
  link?: string;
  imgUrl?: string;
}

/**
 * What a call of the JS-SDK does when it is over. WeChat's `errMsg` is `NAME:ok`, `NAME:cancel` or
 * `NAME:fail …`.
 */
export interface Callbacks<Answer = unknown> {
  success?(answer: Answer & { errMsg: string }): void;
  fail?(answer: { errMsg: string }): void;
  cancel?(answer: { errMsg: string }): void;
  complete?(answer: { errMsg: string }): void;
}

/** What a page in a mini program's web-view calls of it (小程序 web-view). */
export interface MiniProgram {
  navigateTo(options: { url: string } & Callbacks): void;
  redirectTo(options: { url: string } & Callbacks): void;
  switchTab(options: { url: string } & Callbacks): void;
  reLaunch(options: { url: string } & Callbacks): void;
  navigateBack(options?: { delta?: number } & Callbacks): void;
  postMessage(options: { data: unknown }): void;
  getEnv(callback: (answer: { miniprogram: boolean }) => void): void;
}

/** The JS-SDK: the calls used most, and all others by their names. */
export type JsSdk = Calls & { miniProgram: MiniProgram };

interface Calls {
  checkJsApi(
    options: { jsApiList: string[] } & Callbacks<{ checkResult: Record<string, boolean> }>,
  ): void;
  scanQRCode(
    options?: {
      /** 0: WeChat deals with what it scans; 1: it is the answer's `resultStr`. */
      needResult?: 0 | 1;
      scanType?: ("qrCode" | "barCode")[];
    } & Callbacks<{ resultStr: string }>,
  ): void;
  chooseImage(
    options?: {
      count?: number;
      sizeType?: ("original" | "compressed")[];
      sourceType?: ("album" | "camera")[];
    } & Callbacks<{ localIds: string[] }>,
  ): void;
  previewImage(options: { current?: string; urls: string[] } & Callbacks): void;
  getLocation(
    options?: { type?: "wgs84" | "gcj02" } & Callbacks<{ latitude: number; longitude: number }>,
  ): void;
  openLocation(
    options: {
      latitude: number;
      longitude: number;
      name?: string;
      address?: string;
      scale?: number;
      infoUrl?: string;
    } & Callbacks,
  ): void;
  chooseWXPay(
    options: {
      timestamp: number | string;
      nonceStr: string;
      package: string;
      signType: string;
      paySign: string;
    } & Callbacks,
  ): void;
  hideMenuItems(options: { menuList: string[] } & Callbacks): void;
  closeWindow(): void;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  [name: string]: (options?: any) => void;
}

export interface ConfigOptions<Sdk extends object = JsSdk> {
  /**
   * WXJSAPI_URL_PREFIX, on this host or as a whole URL. In a bundle it is needed; client.js and
   * client.mjs are beside it.
   */
  endpoint?: string;
  /** The JS-SDK, if the page has it from npm (weixin-js-sdk); by default `window.wx`, or WeChat's. */
  wx?: Sdk;
  /** Which of several accounts the page is for; by default the one of WXJSAPI_APP_ID. */
  appId?: string;
  /** The JS-SDK functions the page uses; by default WXJSAPI_JS_API_LIST. */
  jsApiList?: string[];
  /** The open tags (开放标签) it uses; by default WXJSAPI_OPEN_TAG_LIST. */
  openTagList?: string[];
  share?: Share;
  /** Which address WeChat compares: by default the first one on iOS, the current one elsewhere. */
  page?: "landing" | "current";
}

/** What `wx.config` said, as in `config:invalid signature`. */
export interface ConfigError extends Error {
  errMsg?: string;
}

/**
 * Has the page signed and calls `wx.config`; again whenever the address has changed. A router's hook
 * may pass over the promise: what is wrong is then said in the console.
 *
 * @returns the JS-SDK, once WeChat has accepted the signature.
 * @throws {ConfigError} outside WeChat, without a signature, and when WeChat refuses.
 */
export function config<Sdk extends object = JsSdk>(options?: ConfigOptions<Sdk>): Promise<Sdk>;

declare global {
  interface Window {
    wxjsapi: { config: typeof config };
  }
  var wxjsapi: { config: typeof config };
}
