# Time per token of every method and model on the paper's cluster, from results/planner.csv alone (make plots). Filled:
# predicted, with the cluster file's head; hollow: measured by the paper.
set terminal svg size 1000,600 dynamic font "sans,12"
set output "results/plots/planner_models.svg"
set datafile separator ","
set title "time per token by method: home cluster of the prima.cpp paper, Q4_K_M" noenhanced
set ylabel "ms per token (log)"
set logscale y
set grid
set key below maxrows 4 samplen 2 noenhanced
set bmargin 12
models = "qwen2.5-7b r1-distill-qwen-7b llama-3-8b r1-distill-llama-8b qwen2.5-14b r1-distill-qwen-14b llama-1-30b " . \
         "qwen2.5-32b qwq-32b r1-distill-qwen-32b llama-1-65b llama-3-70b r1-distill-llama-70b qwen2.5-72b"
methods = "prima halda memory even single"
colors = "#3465a4 #cc0000 #c17d11 #75507b #4e9a06"
at(m) = sum [i=1:words(models)] (word(models, i) eq m ? i : 0)
row(method) = stringcolumn(5) eq "Q4_K_M" && stringcolumn(8) eq "cluster file" && stringcolumn(7) eq method
place(method, shift) = row(method) ? at(stringcolumn(4)) + shift : NaN
set for [i=1:words(models)] xtics (word(models, i) i)
set xtics rotate by 60 right noenhanced font ",9"
set xrange [0.3:words(models) + 0.7]
csv = "results/planner.csv"
plot for [i=1:5] csv every ::1 using (place(word(methods, i), 0.1 * (i - 3))):15 with points pt 7 ps 0.8 \
         lc rgb word(colors, i) title word(methods, i)." predicted", \
     csv every ::1 using (place("prima", -0.2)):20 with points pt 4 lc rgb "#3465a4" title "prima.cpp measured", \
     csv every ::1 using (place("memory", 0)):21 with points pt 4 lc rgb "#c17d11" title "prima.cpp by memory measured", \
     csv every ::1 using (place("even", 0.1)):24 with points pt 4 lc rgb "#75507b" title "dllama measured", \
     csv every ::1 using (place("single", 0.2)):22 with points pt 4 lc rgb "#4e9a06" title "llama.cpp measured"
