// Draws every plot of the page, now and in whatever is swapped in later.
import { charts } from "./ui/charts.ts";

charts();
