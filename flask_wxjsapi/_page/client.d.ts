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

export interface ConfigOptions {
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
 * Has the page signed and calls `wx.config`; again whenever the address has changed.
 *
 * @returns jweixin's `wx`, once WeChat has accepted the signature.
 * @throws {ConfigError} outside WeChat, without a signature, and when WeChat refuses.
 */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export function config(options?: ConfigOptions): Promise<any>;

declare global {
  interface Window {
    wxjsapi: { config: typeof config };
  }
  const wxjsapi: { config: typeof config };
}
