import { config } from "flask-wxjsapi-client";
import { useEffect, useState } from "react";
import { useLocation } from "react-router";
import wx from "weixin-js-sdk";

/** What WeChat says of the page that is shown, which has this title. */
export function useVerdict(title: string) {
  const location = useLocation();
  const [verdict, setVerdict] = useState("…");

  useEffect(() => {
    let isShown = true;
    const tell = (text: string) => isShown && setVerdict(text);
    setVerdict("…");
    const share = { title, desc: "In React", imgUrl: "/share.png" };
    config({ endpoint: "/wxjsapi", wx, share }).then(
      () => tell("config:ok"),
      (error: Error) => tell(error.message),
    );
    return () => {
      isShown = false;
    };
  }, [location, title]);

  return verdict;
}
