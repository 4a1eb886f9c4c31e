// <etude-editor><textarea>…</textarea></etude-editor>: CodeMirror in a shadow root, where its style
// sheets are objects that the content security policy need not allow. The textarea stays in the
// form and always has the text; without JavaScript it is the editor.

import { closeBrackets, closeBracketsKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { python } from "@codemirror/lang-python";
import {
  HighlightStyle,
  bracketMatching,
  indentOnInput,
  indentUnit,
  syntaxHighlighting,
} from "@codemirror/language";
import { EditorState } from "@codemirror/state";
import {
  EditorView,
  drawSelection,
  highlightActiveLine,
  highlightActiveLineGutter,
  highlightSpecialChars,
  keymap,
  lineNumbers,
} from "@codemirror/view";
import { tags } from "@lezer/highlight";

const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword], color: "var(--blue)" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--green)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--purple)" },
  { tag: tags.comment, color: "var(--muted)", fontStyle: "italic" },
  {
    tag: [tags.definition(tags.function(tags.variableName)), tags.definition(tags.className)],
    fontWeight: "600",
  },
  { tag: tags.invalid, color: "var(--orange)" },
]);

const look = EditorView.theme({
  "&": {
    border: "1px solid var(--muted)",
    borderRadius: "4px",
    background: "var(--paper)",
    color: "var(--ink)",
    fontSize: "0.875rem",
  },
  "&.cm-focused": { outline: "2px solid var(--blue)", outlineOffset: "1px" },
  ".cm-scroller": {
    fontFamily: "var(--mono)",
    lineHeight: "1.6",
    minHeight: "20rem",
    maxHeight: "70vh",
    overflow: "auto",
  },
  ".cm-content": { caretColor: "var(--ink)", padding: "0.5rem 0" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  ".cm-gutters": { background: "var(--paper)", color: "var(--muted)", border: "none" },
  ".cm-activeLine, .cm-activeLineGutter": { background: "var(--raised)" },
  ".cm-selectionBackground, &.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground":
    { background: "var(--trained)" },
  ".cm-matchingBracket, &.cm-focused .cm-matchingBracket": {
    background: "var(--grid)",
    outline: "1px solid var(--muted)",
  },
});

/**
 * Type over a selection. Left to itself, a browser joins the lines of the selection by elements with
 * style attributes, which the content security policy forbids.
 */
function typeOver(event: InputEvent, view: EditorView): boolean {
  const { from, to, empty } = view.state.selection.main;
  const text = event.data;
  if (empty || !text || event.inputType !== "insertText" || event.isComposing) return false;
  const insert = () =>
    view.state.update(view.state.replaceSelection(text), {
      userEvent: "input.type",
      scrollIntoView: true,
    });
  const handlers = view.state.facet(EditorView.inputHandler);
  if (!handlers.some((handler) => handler(view, from, to, text, insert))) view.dispatch(insert());
  event.preventDefault();
  return true;
}

export class Editor extends HTMLElement {
  #view: EditorView | null = null;

  connectedCallback(): void {
    const area = this.querySelector("textarea");
    if (!area || this.#view) return;
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    const label = area.labels[0];
    this.#view = new EditorView({
      parent: root,
      root,
      state: EditorState.create({ doc: area.value, extensions: this.#extensions(area) }),
    });
    label?.addEventListener("click", (event) => {
      event.preventDefault();
      this.focus();
    });
    this.toggleAttribute("ready", true);
  }

  /** Put the caret where one types. */
  override focus(): void {
    this.#view?.focus();
  }

  get value(): string {
    return this.#view?.state.doc.toString() ?? this.querySelector("textarea")?.value ?? "";
  }

  /** Replace the text, keeping the place of the caret where that is possible. */
  set value(text: string) {
    const view = this.#view;
    if (!view || text === this.value) return;
    const at = Math.min(view.state.selection.main.head, text.length);
    view.dispatch({
      changes: { from: 0, to: view.state.doc.length, insert: text },
      selection: { anchor: at },
    });
  }

  #extensions(area: HTMLTextAreaElement) {
    const press = (name: string) => () => {
      area.form?.querySelector<HTMLButtonElement>(`button[data-key="${name}"]`)?.click();
      return true;
    };
    return [
      lineNumbers(),
      highlightActiveLineGutter(),
      highlightSpecialChars(),
      history(),
      drawSelection(),
      indentUnit.of("    "),
      EditorState.tabSize.of(4),
      indentOnInput(),
      bracketMatching(),
      closeBrackets(),
      highlightActiveLine(),
      syntaxHighlighting(colours),
      python(),
      look,
      keymap.of([
        { key: "Mod-Enter", run: press("run"), shift: press("submit") },
        // Until something is typed or the editor is left: no time limit for slow hands.
        {
          key: "Escape",
          run: (view) => {
            view.setTabFocusMode(true);
            return true;
          },
        },
        ...closeBracketsKeymap,
        ...defaultKeymap,
        ...historyKeymap,
        indentWithTab,
      ]),
      EditorView.contentAttributes.of({
        tabindex: "0",
        "aria-label": "Your code, Python",
        "aria-description": "Tab indents. Escape, then Tab leaves the editor.",
      }),
      EditorView.domEventHandlers({
        beforeinput: typeOver,
        blur: (_event, view) => void view.setTabFocusMode(false),
      }),
      EditorView.updateListener.of((update) => {
        if (!update.docChanged) return;
        update.view.setTabFocusMode(false);
        area.value = this.value;
        area.dispatchEvent(new Event("input", { bubbles: true }));
      }),
    ];
  }
}

customElements.define("etude-editor", Editor);
