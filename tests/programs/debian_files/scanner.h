enum { NUMBER = 258 };
extern int yylval;
