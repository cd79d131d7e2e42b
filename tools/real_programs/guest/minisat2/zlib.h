// MiniSat's parser reads compressed files. It is not used here: formulas are read by minisat_run.cc.
typedef void *gzFile;
int gzread(gzFile file, void *to, unsigned size);
