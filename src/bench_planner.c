/* Suite `planner`: plans for the paper's cluster and for random ones, ours beside other ways of dividing a
 * model; what rounds are worth; how long solving takes. Nothing is run: predicted and simulated times only,
 * beside published ones. Each file is made anew, by its own bench_planner_*.c. */
#include "src/bench_planner.h"
#include "src/base/log.h"
#include "src/bench.h"
#include "src/options.h"
#include <sys/stat.h>

int bench_planner(int argc, char **argv, pr_err *err)
{
    planner_options o = {.output = "results",
                         .datasets = "datasets",
                         .devices = "2,4,8,16,32,64,128",
                         .ctx = 1024,
                         .clusters = 1500,
                         .reps = 5,
                         .certify_s = 1};
    const opt table[] = {
        {"output", 'o', OPT_STRING, &o.output, "DIR", 0, 0, "folder of the CSV files, made anew (results)"},
        {"datasets", 0, OPT_STRING, &o.datasets, "DIR", 0, 0,
         "folder with shapes/ and clusters/paper-home.yaml (datasets)"},
        {"models", 0, OPT_STRING, &o.models, "NAME,...", 0, 0, "for planner.csv: some of the shapes (all)"},
        {"ctx", 0, OPT_COUNT, &o.ctx, "N", 1, 1 << 24, "tokens of the one sequence (1024)"},
        {"clusters", 0, OPT_COUNT, &o.clusters, "N", 1, 1000000,
         "random clusters for planner_halda.csv (1500)"},
        {"devices", 0, OPT_STRING, &o.devices, "N,...", 0, 0,
         "sizes of the clusters that are timed (2,4,8,16,32,64,128)"},
        {"reps", 'r', OPT_COUNT, &o.reps, "N", 1, BENCH_MAX_REPS,
         "repetitions of the timing; the median counts (5)"},
        {"certify", 0, OPT_DURATION, &o.certify_s, "TIME", 0, 0, "limit of a certificate that is timed (1s)"},
        {0}};
    const opt_spec spec = {
        "[options]",
        "Plans for the cluster of the prima.cpp paper, beside other methods and published "
        "figures: writes DIR/planner.csv,\nplanner_rounds.csv, planner_sensitivity.csv, planner_halda.csv "
        "and planner_solve.csv. Nothing is measured but the time of solving.",
        table, 0, 0};
    int first, rc = options_parse(&spec, argc, argv, &first, err);

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    mkdir(o.output, 0755);
    if ((rc = bench_planner_table(&o, err)) || (rc = bench_planner_rounds(&o, err)) ||
        (rc = bench_planner_sensitivity(&o, err)) || (rc = bench_planner_halda(&o, err)) ||
        (rc = bench_planner_solve(&o, err)))
        return rc;
    log_info(
        "%s: planner.csv, planner_rounds.csv, planner_sensitivity.csv, planner_halda.csv, planner_solve.csv",
        o.output);
    return PR_OK;
}
