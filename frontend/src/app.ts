// The frame of every page: theme, menus, forms without a reload, questions before deeds, times as people read them.
import { frame } from "./ui/frame.ts";
import { menus } from "./ui/menus.ts";
import { themeButton } from "./ui/theme.ts";

themeButton();
menus();
frame();
