%{
#include <stdio.h>
int yylex(void);
void yyerror(const char *s) { puts(s); }
%}
%token NUMBER
%left '+' '-'
%left '*'
%%
all: e '\n' { printf("%d\n", $1); };
e: NUMBER | e '+' e { $$ = $1 + $3; }
 | e '-' e { $$ = $1 - $3; } | e '*' e { $$ = $1 * $3; } | '(' e ')' { $$ = $2; };
%%
int main(void) { return yyparse(); }
