// The page of a problem: the code editor, drafts that are saved while one types, and forms whose
// answers replace the parts of the page that they change.

import "./practise/editor";
import "./practise/answer";
