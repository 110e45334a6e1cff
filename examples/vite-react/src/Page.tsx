import { useVerdict } from "./wechat";

export function Page({ title }: { title: string }) {
  const verdict = useVerdict(title);
  return (
    <>
      <title>{title}</title>
      <h1>{title}</h1>
      <p>
        WeChat says: <output id="verdict">{verdict}</output>
      </p>
    </>
  );
}
