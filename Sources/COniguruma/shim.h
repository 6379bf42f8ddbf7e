#include <oniguruma.h>

// Swift does not see these macros.
static inline OnigEncoding pef_onig_utf8(void) { return ONIG_ENCODING_UTF8; }
static inline OnigSyntaxType *pef_onig_python_syntax(void) { return ONIG_SYNTAX_PYTHON; }
static inline OnigSyntaxType *pef_onig_own_syntax(void) { return ONIG_SYNTAX_ONIGURUMA; }
