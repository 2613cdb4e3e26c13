# Time per token over the number of rounds on the paper's cluster, from results/planner_rounds.csv alone (make plots).
set terminal svg size 1000,600 dynamic font "sans,12"
set output "results/plots/planner.svg"
set datafile separator ","
set title "prima plan: time per token over rounds, home cluster of the prima.cpp paper, Q4_K_M" noenhanced
set xlabel "rounds k (laps of the ring per token)"
set ylabel "ms per token (log)"
set logscale y
set xrange [0:33]
set yrange [50:5000]
set grid
set key below maxrows 3 samplen 2 noenhanced
csv = "results/planner_rounds.csv"
only(m, column) = stringcolumn(4) eq m ? column : NaN
set datafile missing NaN
models = "llama-3-70b llama-1-65b llama-1-30b"
colors = "#3465a4 #cc0000 #4e9a06"
plot for [i=1:3] csv every ::1 using 7:(only(word(models, i), $10)) with lines lw 2 lc rgb word(colors, i) \
         title word(models, i)." predicted", \
     for [i=1:3] csv every ::1 using 7:(only(word(models, i), $11)) with points pt 7 ps 0.6 lc rgb word(colors, i) \
         title word(models, i)." simulated", \
     for [i=1:3] csv every ::1 using 7:(only(word(models, i), $14)) with lines dt 2 lc rgb word(colors, i) \
         title word(models, i)." measured (paper)"
