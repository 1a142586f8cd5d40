import { mount } from "svelte";
import App from "./App.svelte";
import { nextTask } from "./lib/task.ts";
import "./app.css";

void nextTask().then(() => mount(App, { target: document.getElementById("page")! }));
