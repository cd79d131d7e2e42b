// Solve a formula in DIMACS format with MiniSat: minisat_run FILE
#include "minisat/core/Solver.h"

#include <cstdio>
#include <cstdlib>

using namespace Minisat;

int main(int argc, char **argv)
{
    FILE *file = argc > 1 ? std::fopen(argv[1], "r") : NULL;
    int variables, clauses;
    if (file == NULL || std::fscanf(file, " p cnf %d %d", &variables, &clauses) != 2) {
        std::printf("usage: minisat_run FILE\n");
        return 2;
    }
    Solver solver;
    for (int i = 0; i < variables; i++)
        solver.newVar();
    for (int i = 0; i < clauses; i++) {
        vec<Lit> clause;
        for (int literal; std::fscanf(file, "%d", &literal) == 1 && literal != 0;)
            clause.push(mkLit(std::abs(literal) - 1, literal < 0));
        solver.addClause(clause);
    }
    bool satisfied = solver.solve();
    std::printf("%s, %d conflicts\n", satisfied ? "satisfiable" : "not satisfiable", (int)solver.conflicts);
    return 0;
}
