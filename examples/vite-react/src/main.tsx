import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { BrowserRouter, Link, Route, Routes } from "react-router";

import { Page } from "./Page";
import "./main.css";

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <BrowserRouter>
      <nav>
        <Link to="/">Start</Link>
        <Link to="/one?q=中文">One</Link>
        <Link to="/two%2Fthree">Two</Link>
      </nav>
      <Routes>
        <Route path="/" element={<Page title="Start" />} />
        <Route path="/one" element={<Page title="Item 1" />} />
        <Route path="/:item" element={<Page title="Item 2/3" />} />
      </Routes>
    </BrowserRouter>
  </StrictMode>,
);
