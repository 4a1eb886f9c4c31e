// What every page runs: htmx, and the elements that follow the stream of events.

import "htmx.org";
import "./live";
