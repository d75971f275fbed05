/** A process of its own for mount(2): `mount-child TYPE SOURCE TARGET DATA ro|rw`. */
import { mount } from "./libc.ts";

const [type = "", source = "", target = "", data = "", how = "ro"] = process.argv.slice(2);
mount(type, source, target, { data, isReadOnly: how === "ro" });
